// Comfort for the account page, which works without it: times as people say them, a question before signing out
// everywhere, and a look again when the page has been away for a while.

const STALE = 60_000; // ms
const STEPS = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });

for (const time of document.querySelectorAll("time")) {
  const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
  const [unit, size] = STEPS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 0];
  time.title = time.textContent;
  time.textContent = size ? words.format(Math.round(seconds / size), unit) : "just now";
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

const shown = Date.now();
document.addEventListener("visibilitychange", () => {
  const typed = [...document.querySelectorAll("input:not([type=hidden])")].some((input) => input.value);
  if (!document.hidden && !typed && Date.now() - shown > STALE) location.replace(location.pathname);
});
