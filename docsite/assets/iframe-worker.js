// Browsers run no worker from a file on a disk. There, and only there, the script of the search runs in a hidden frame
// that takes the worker's place. Zensical would load such a stand-in from a CDN; a name with "iframe-worker" keeps it off.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.documentElement.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => this.tell(new MessageEvent("message", { data: structuredClone(data) }));
      const script = this.inside.document.createElement("script");
      script.src = new URL(address, document.baseURI).href;
      script.onload = () => this.begin();
      script.onerror = () => this.tell(new Event("error"));
      this.inside.document.head.append(script);
    }

    begin() {
      const waiting = this.waiting;
      this.waiting = undefined;
      for (const data of waiting) this.postMessage(data);
    }

    tell(event) {
      setTimeout(() => {
        this[`on${event.type}`]?.(event);
        this.dispatchEvent(event);
      });
    }

    postMessage(data) {
      const copy = structuredClone(data); // as a worker gets it: neither side may change what the other holds
      if (this.waiting) this.waiting.push(copy);
      else setTimeout(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data: copy })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
