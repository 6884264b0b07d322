"""The pages for people. Pure: what to show comes in, bytes go out.

page      what every page has: the frame, the policy of what it may load, the static files
account   /auth/account: sign in, my devices, sign out
agents    a user agent in words
static/   styles and scripts
"""
