"""How panels look: one style sheet, in the colours of the notebook's theme, for every front end.

JupyterLab and Notebook name their colours `--jp-...`; where there are none (Colab, VS Code) the text's own colour and
greys that read on light and dark stand in. A panel lays itself out by its own width, not the window's.
"""

from __future__ import annotations


def live_class(name: str) -> str:
    """The class of a live panel of this name."""
    return f"cbnb-live-{name}"


def still_class(name: str) -> str:
    """The class of its picture in the saved notebook."""
    return f"cbnb-still-{name}"


def hiding(name: str) -> str:
    """Hides the picture while the live panel is there; and, where the kernel is gone, what JupyterLab writes instead of
    the live panel: that it has no such model. A notebook that is not trusted shows no live panel and drops this.
    """
    still, live = still_class(name), live_class(name)
    return (
        f"<style>body:has(.{live}) .{still},body:has(.{live}) .jp-OutputArea-child:has(.{still}){{display:none}}"
        f".jp-OutputArea:has(.{still}) .jp-OutputArea-output.jupyter-widgets:not(:has(*)){{display:none}}</style>"
    )


SHEET = """<style>
.cbnb{container-type:inline-size;width:100%;max-width:1200px;color:var(--jp-ui-font-color1,inherit);
 font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;
 font-variant-numeric:tabular-nums}
.cbnb .widget-box,.cbnb .widget-html,.cbnb .widget-html-content{overflow:visible}
.cbnb .widget-html,.cbnb .widget-html-content{height:auto;margin:0;line-height:1.45;font-size:13px;min-width:0;
 color:inherit}
.cbnb .widget-html-content{width:100%;align-self:auto}
.cbnb .cbnb-none,.cbnb .widget-html:has(>.widget-html-content:empty){display:none}
.cbnb .cbnb-parts{display:flex;flex-direction:column;gap:12px;margin:0}
.cbnb .cbnb-side{display:contents}
.cbnb .cbnb-memory{order:1}
@container (min-width:820px){.cbnb .cbnb-parts{flex-direction:row;align-items:flex-start}
 .cbnb .cbnb-side{display:flex;flex-direction:column;gap:12px;margin:0;flex:11 1 0;min-width:0}
 .cbnb .cbnb-side:first-child:not(:last-child){flex-grow:9}}
.cbnb-card{border:1px solid var(--jp-border-color2,rgba(127,127,127,.4));border-radius:6px;padding:10px 12px;
 gap:6px;margin:0;background:var(--jp-layout-color1,transparent)}
.cbnb-card>*{flex:none}
.cbnb-title{font-weight:600;font-size:14px}
.cbnb-strong{font-weight:600}
.cbnb-whole{white-space:nowrap}
.cbnb .widget-upload{font-size:0}
.cbnb .widget-upload::after{content:"Upload clip";font-size:13px}
.cbnb .widget-upload i{font-size:13px}
.cbnb .cbnb-fold{background:none;border:none;box-shadow:none!important;padding:0;width:auto;text-align:left;
 color:inherit}
.cbnb .cbnb-folded{gap:6px;margin:0;overflow:visible}
.cbnb-muted{color:var(--jp-ui-font-color2,inherit)}
.cbnb-text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:8.7em;overflow-y:auto}
.cbnb-notice{border-left:3px solid;padding:2px 0 2px 8px;overflow-wrap:anywhere}
.cbnb-error{border-color:var(--jp-error-color1,#d32f2f)}
.cbnb-low{border-color:var(--jp-warn-color1,#b8862b)}
.cbnb-done{border-color:var(--jp-success-color1,#4f9d69)}
.cbnb-table,.jp-RenderedHTMLCommon .cbnb-table{border-collapse:collapse;border:none;width:100%;margin:2px 0;
 font-size:13px;table-layout:auto;color:inherit}
.cbnb .cbnb-table th,.cbnb .cbnb-table td{text-align:right;font-weight:normal;padding:2px 0 2px 12px;border:none;
 white-space:nowrap;vertical-align:baseline;background:none;max-width:none}
.cbnb .cbnb-table th:first-child,.cbnb .cbnb-table td:last-child:not(:nth-child(2)),
.cbnb .cbnb-table thead th:last-child:not(:nth-child(2)){text-align:left;white-space:normal}
.cbnb .cbnb-table th:first-child{padding-left:6px}
.cbnb .cbnb-table thead th{color:var(--jp-ui-font-color2,inherit);font-size:12px}
.cbnb .cbnb-table.cbnb-words th{width:4em;text-align:right}
.cbnb .cbnb-table.cbnb-words td{text-align:left;white-space:normal}
.cbnb .cbnb-table tr{background:none}
.cbnb .cbnb-table tr.cbnb-marked{background:rgba(61,133,184,.16)}
.cbnb .cbnb-table tr.cbnb-marked th{font-weight:600}
.cbnb-bar{display:flex;height:12px;border-radius:3px;overflow:hidden;background:rgba(127,127,127,.25);margin:6px 0 2px}
.cbnb-legend{display:flex;flex-wrap:wrap;gap:0 14px;font-size:12px;color:var(--jp-ui-font-color2,inherit)}
.cbnb-legend i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:5px}
.cbnb-line{display:block;width:100%;height:56px;background:rgba(127,127,127,.1);border-radius:3px}
.cbnb-line polyline{fill:none;stroke:#3d85b8;stroke-width:1.6;vector-effect:non-scaling-stroke}
.cbnb-line line{stroke-width:1.4;vector-effect:non-scaling-stroke;stroke-dasharray:3 2}
.cbnb-line .cbnb-load{stroke:#b8862b}.cbnb-line .cbnb-take{stroke:#4f9d69}
.cbnb-legend .cbnb-load{background:#b8862b}.cbnb-legend .cbnb-take{background:#4f9d69}
.cbnb .cbnb-row{gap:8px;flex-wrap:wrap;align-items:center}
.cbnb .cbnb-row>*{margin:0;flex:none}
.cbnb .cbnb-row>.cbnb-wide{flex:1 1 160px;min-width:0}
.cbnb .cbnb-field{width:100%;margin:0}
.cbnb .cbnb-take-row{border-top:1px solid var(--jp-border-color2,rgba(127,127,127,.3));padding-top:8px;gap:6px;
 margin:0}
.cbnb textarea{font-size:14px;line-height:1.45;resize:vertical}
.cbnb .widget-label{color:inherit}
.cbnb button:focus-visible,.cbnb select:focus-visible,.cbnb textarea:focus-visible,.cbnb input:focus-visible{
 outline:2px solid var(--jp-brand-color1,#3d85b8);outline-offset:1px}
.cbnb audio{max-width:100%}.cbnb img{max-width:100%}
</style>"""
