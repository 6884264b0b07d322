"""What takes too long for every change: what an API server, another linter and a root of Debian say.

cluster     etcd and kube-apiserver, without controllers and nodes
root        the image in a root that debootstrap makes
"""
