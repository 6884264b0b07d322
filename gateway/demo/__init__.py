"""What `tokengate demo` shows, besides the gateway itself.

backend       the sample backend: says what reached it, ticks once a second, hands out the page
files         the page's files, and those of the JavaScript client that it uses
introduction  what the terminal says: where the demo is, and three lines to paste
site/         the page: one document, one style, its modules
"""

from gateway.demo.backend import WEBSOCKETS, backend
from gateway.demo.introduction import introduction

__all__ = ("WEBSOCKETS", "backend", "introduction")
