"""How Gradio's pages look: the letters and colours of `static/shell/tokens.css`, which the labelling page shares.

The theme only points Gradio's own variables at those tokens, so light and dark are decided in one place. Only letters
that the system has are used: nothing is loaded from another host.
"""

from __future__ import annotations

import inspect
from typing import Any

import gradio as gr

LETTERS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
LETTERS_FIXED = ("ui-monospace", "SF Mono", "Consolas", "Liberation Mono", "monospace")

# What Gradio puts into the head of every page; the files are served from `static/shell/`.
HEAD = (
    '<link rel="stylesheet" href="/static/shell/tokens.css">'
    '<link rel="stylesheet" href="/static/shell/shell.css">'
    '<script src="/static/shell/shell.js"></script>'
)

_NO_SHADOW = "0 0 0 0 transparent"
_COLOURS = {
    "body_background_fill": "var(--ground)",
    "body_text_color": "var(--text)",
    "body_text_color_subdued": "var(--muted)",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--ground)",
    "border_color_accent": "var(--accent)",
    "border_color_accent_subdued": "var(--line)",
    "border_color_primary": "var(--line)",
    "color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "link_text_color_active": "var(--accent-strong)",
    "link_text_color_hover": "var(--accent-strong)",
    "link_text_color_visited": "var(--accent)",
    "code_background_fill": "var(--sunken)",
    "block_background_fill": "var(--surface)",
    "block_border_color": "var(--line)",
    "block_info_text_color": "var(--muted)",
    "block_label_background_fill": "var(--surface)",
    "block_label_border_color": "var(--line)",
    "block_label_text_color": "var(--muted)",
    "block_title_text_color": "var(--text)",
    "panel_background_fill": "var(--surface)",
    "panel_border_color": "var(--line)",
    "accordion_text_color": "var(--text)",
    "table_text_color": "var(--text)",
    "table_border_color": "var(--line)",
    "table_even_background_fill": "var(--surface)",
    "table_odd_background_fill": "var(--ground)",
    "table_row_focus": "var(--accent-soft)",
    "checkbox_background_color": "var(--surface)",
    "checkbox_background_color_focus": "var(--surface)",
    "checkbox_background_color_hover": "var(--surface)",
    "checkbox_background_color_selected": "var(--accent)",
    "checkbox_border_color": "var(--line-strong)",
    "checkbox_border_color_focus": "var(--accent)",
    "checkbox_border_color_hover": "var(--accent)",
    "checkbox_border_color_selected": "var(--accent)",
    "checkbox_label_background_fill": "var(--surface)",
    "checkbox_label_background_fill_hover": "var(--sunken)",
    "checkbox_label_background_fill_selected": "var(--accent-soft)",
    "checkbox_label_border_color": "var(--line)",
    "checkbox_label_border_color_hover": "var(--line-strong)",
    "checkbox_label_border_color_selected": "var(--accent)",
    "checkbox_label_text_color": "var(--text)",
    "checkbox_label_text_color_selected": "var(--text)",
    "error_background_fill": "var(--danger-soft)",
    "error_border_color": "var(--danger)",
    "error_text_color": "var(--danger)",
    "error_icon_color": "var(--danger)",
    "input_background_fill": "var(--surface)",
    "input_background_fill_focus": "var(--surface)",
    "input_border_color": "var(--line-strong)",
    "input_border_color_focus": "var(--accent)",
    "input_placeholder_color": "var(--muted)",
    "loader_color": "var(--accent)",
    "slider_color": "var(--accent)",
    "stat_background_fill": "var(--accent)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "var(--accent)",
    "button_primary_text_color": "var(--on-accent)",
    "button_secondary_background_fill": "var(--surface)",
    "button_secondary_background_fill_hover": "var(--sunken)",
    "button_secondary_border_color": "var(--line-strong)",
    "button_secondary_text_color": "var(--text)",
    "button_cancel_background_fill": "var(--surface)",
    "button_cancel_background_fill_hover": "var(--danger-soft)",
    "button_cancel_border_color": "var(--danger)",
    "button_cancel_text_color": "var(--danger)",
}
_SHAPES = {
    "block_shadow": _NO_SHADOW,
    "block_border_width": "1px",
    "block_radius": "var(--round)",
    "block_title_text_weight": "600",
    "block_title_text_size": "*text_sm",
    "block_label_text_size": "*text_sm",
    "container_radius": "var(--round)",
    "input_radius": "6px",
    "input_border_width": "1px",
    "input_shadow": _NO_SHADOW,
    "input_shadow_focus": "0 0 0 2px var(--accent-soft)",
    "button_border_width": "1px",
    "button_large_radius": "6px",
    "button_medium_radius": "6px",
    "button_small_radius": "6px",
    "button_large_text_weight": "600",
    "button_primary_shadow": _NO_SHADOW,
    "button_secondary_shadow": _NO_SHADOW,
    "button_transform_hover": "none",
    "button_transform_active": "none",
}


def build_theme() -> gr.themes.Base:
    """Gradio's base theme with every colour taken from our tokens, the same name in light and in dark."""
    fonts = [gr.themes.Font(name) for name in LETTERS]
    fixed = [gr.themes.Font(name) for name in LETTERS_FIXED]
    theme = gr.themes.Base(primary_hue="teal", secondary_hue="teal", neutral_hue="gray", font=fonts, font_mono=fixed)
    settable = inspect.signature(theme.set).parameters
    values = {**_COLOURS, **_SHAPES}
    values |= {f"{name}_dark": value for name, value in values.items() if f"{name}_dark" in settable}
    theme.set(**values)
    return theme


def mount_options() -> dict[str, Any]:
    """What `gr.mount_gradio_app` is told besides the pages: how they look, and nothing of Gradio's own around them."""
    return {"theme": build_theme(), "head": HEAD, "footer_links": [], "run_history": False, "show_error": False}
