"""QR codes as SVG that stands in a page without scripts or styles of its own."""

import segno


def svg(text: str) -> str:
    """Dark on white with its margin, also on a dark page: cameras need the contrast."""
    return str(segno.make(text, error="m").svg_inline(scale=5, dark="#000", light="#fff", omitsize=False))
