"""What runs tokengate elsewhere: the image, the manifests of Kubernetes, the chart, the release.

tools       helm and the schemas of custom resources, from the Go module proxy: `make k8s-tools`
manifests   every rendering that users can make, as objects
schemas     what an API server would say of an object
pod         a pod's processes without a cluster: its files, its user, its network, on this machine
steps       the steps of the Dockerfile without an engine
page        the commands of docs/kubernetes.md
slow        what .ci/run leaves out: an API server, another linter, a root of Debian
"""
