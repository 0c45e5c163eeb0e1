"""What does not fit where it is shown."""

from __future__ import annotations

from playwright.sync_api import Locator

# These scroll whatever is too wide, without anyone having meant it to.
CONTAINERS = ".jp-OutputArea, .jp-OutputArea-child, .jp-OutputArea-output, .widget-box, .jupyter-widget-box"
# Looked at from outside only: their parts overlap. `noUi` is the slider of ipywidgets, whose handle hangs over.
DRAWN = "svg, .noUi-target"
FIND = """
(root, {containers, drawn, mayScroll, ellipsis}) => {
    const SLACK = 1;  // pixels, of rounding
    const found = [];
    const frame = root.getBoundingClientRect();

    const named = (element) => {
        const classes = [...element.classList].slice(0, 4).map((name) => '.' + name).join('');
        const text = (element.innerText || element.value || element.alt || '').trim().replace(/\\s+/g, ' ');
        return `${element.localName}${classes}` + (text ? ` "${text.slice(0, 60)}"` : '');
    };
    const meant = (element, style) =>
        (mayScroll && element.matches(mayScroll)) ||
        (['auto', 'scroll'].includes(style.overflowX) && (element.style.overflow || !element.matches(containers))) ||
        (style.overflowX === 'hidden' && style.textOverflow === 'ellipsis' && !ellipsis);
    const invisible = (element) => !element.checkVisibility({visibilityProperty: true});
    // For screen readers: there, but a pixel in size or clipped to nothing.
    const unseen = (element, style) =>
        style.clip === 'rect(0px, 0px, 0px, 0px)' || (element.offsetWidth <= 1 && element.offsetHeight <= 1);

    const visit = (element, framed) => {
        const style = getComputedStyle(element);
        if (style.display === 'contents') return [...element.children].forEach((child) => visit(child, framed));
        if (invisible(element) || unseen(element, style)) return;
        const box = element.getBoundingClientRect();
        const over = {
            left: frame.left - box.left, right: box.right - frame.right,
            top: frame.top - box.top, bottom: box.bottom - frame.bottom,
        };
        if (framed && element !== root)
            for (const [side, pixels] of Object.entries(over))
                if (pixels > SLACK) found.push(`${named(element)}: ${Math.round(pixels)} px out at the ${side}`);
        const inside = !meant(element, style);
        const holds = style.display !== 'inline' && element.clientWidth && !element.matches('input, textarea');
        if (inside && holds && element.scrollWidth > element.clientWidth + SLACK)
            found.push(`${named(element)}: ${element.scrollWidth} px of content in ${element.clientWidth} px`);
        if (!element.matches(drawn)) for (const child of element.children) visit(child, framed && inside);
    };

    visit(root, true);
    return found;
}
"""


def overflowing(locator: Locator, may_scroll: str = "", ellipsis: bool = False) -> list[str]:
    """The elements of it that are wider than their place or leave its box, each with its text and by how much.

    Args:
        may_scroll: a selector of elements that scroll on purpose; a box of ipywidgets does with `Layout(overflow=...)`.
        ellipsis: whether text that is cut with an ellipsis counts too.
    """
    locator.scroll_into_view_if_needed()
    asked = {"containers": CONTAINERS, "drawn": DRAWN, "mayScroll": may_scroll, "ellipsis": ellipsis}
    found: list[str] = locator.evaluate(FIND, asked)
    return found
