"""The documentation as a site, and the parts of docs/ that are made from the code.

    python -m docsite generate    write what is made: tables, reference, picture
    python -m docsite build       docs/ as a site that needs no network, in build/site

marks          the places of a page that are made, between two comments
configuration  the tables of docs/configuration.md, from the settings' models
http           docs/http-reference.md, from the OpenAPI document
metrics        the table of metrics, from telemetry/series.py
rotation       the picture of the rotation, from what tokens/rotation.py decides
generated      which page or picture is made by which of these
nav            the order of the pages
staging        the pages as the site has them: every link leads to a page of it
build          the site itself, by Zensical
"""
