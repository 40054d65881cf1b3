"""Reads a page as a browser would: its tables, pictures and links; checks that its elements nest."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class ReadPage(HTMLParser):
    """`tables`: id -> rows of cell texts; `elements`: (tag, attributes); `ids`, `text`."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tables, self.elements, self.ids, self.text = {}, [], [], ""
        self._open, self._rows, self._cell = [], None, None
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute twice: {attributes}"
        self.elements.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "table":
            self._rows = self.tables[found["id"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> inside {self._open[-3:]}"
        self._open.pop()
        if tag in ("td", "th"):
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def of(self, tag):
        """The attributes of each element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def rows(self, table):
        """First cell -> the other cells, of a table."""
        return {row[0]: row[1:] for row in self.tables[table]}


def check_self_contained(html):
    """The page, checked: nothing from elsewhere, no script, a text for each picture, unique ids, links that lead
    somewhere."""
    page = ReadPage(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(set(page.ids)) == len(page.ids)
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/png;base64,") or value[1:] in page.ids, (tag, value)
    assert "url(http" not in html and "@import" not in html
    assert all(image["alt"] for image in page.of("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.of("svg"))
    return page


def interval(text):
    """(value, lower, upper) of "83.33% 35.9% to 99.6%" or "1.2 0.9 to 1.5"."""
    value, rest = text.split(" ", 1)
    return tuple(float(part.rstrip("%")) / (100 if "%" in part else 1) for part in (value, *rest.split(" to ")))
