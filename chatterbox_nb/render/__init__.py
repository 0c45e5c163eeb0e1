"""Results as text and as HTML, strings only; knows nothing of IPython. Importing this teaches them to show themselves.

Two kinds of place show the HTML: trusted notebooks, and sanitizers that drop scripts, style sheets and inline SVG. It
is written for the second: plain tables, inline styles, pictures and sound as data addresses.
"""

from chatterbox_nb.render import plain, reports, takes
from chatterbox_nb.shown import RENDERERS, Renderer

RENDERERS["Take"] = Renderer(plain.take, takes.take)
RENDERERS["LoadReport"] = Renderer(plain.load_report, reports.load_report)
RENDERERS["ModelInfo"] = Renderer(plain.model_info, reports.model_info)
RENDERERS["ModelTable"] = Renderer(plain.model_table, reports.model_table)
RENDERERS["MemoryReading"] = Renderer(plain.memory, reports.memory)
