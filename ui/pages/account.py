"""Account: one's own password, where one is logged in, keys of the labelling page, tokens for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from storage.errors import InvalidInputError
from storage.validate import check_choice
from ui.pages.frame import (
    ANNOTATOR,
    Said,
    Shell,
    Visit,
    build_header,
    build_html,
    build_notice,
    build_title,
    fill,
    on_load,
)

THEMES = [("As the system", "auto"), ("Light", "light"), ("Dark", "dark")]
TOKEN_DAYS = [("30 days", "30"), ("90 days", "90"), ("a year", "365")]


def build_account(shell: Shell) -> None:
    """The page for everybody."""
    build_header(shell, "account")
    with gr.Column(elem_id="main"):
        build_title("Account", "Your own password, sessions, keys and tokens.")
        build_html(fill("sign_out.html"))
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="panel"):
                _build_password(shell)
            with gr.Column(min_width=300, elem_classes="panel"):
                sessions = _build_sessions(shell)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="panel"):
                settings = _build_settings(shell)
            with gr.Column(min_width=300, elem_classes="panel"):
                tokens, number = _build_tokens(shell)
    on_load(shell, show_account, ANNOTATOR, [sessions, *settings, tokens, number])


def show_account(visit: Visit) -> tuple[Any, ...]:
    """Sessions, keys, whether they are on, the labelling page's colours, tokens."""
    keys = visit.store.get_setting(visit.user.name, "keys") or {}
    theme = visit.store.get_setting(visit.user.name, "theme") or "auto"
    return _sessions_html(visit), _keys_html(visit), keys.get("enabled", True), theme, *_tokens(visit)


# --- password and sessions ---------------------------------------------------------------------------------------


def _build_password(shell: Shell) -> None:
    build_html(fill("panel_title.html", title="Password", text="Changing it logs you out everywhere, here too."))
    current = gr.Textbox(label="The present password", type="password", max_length=200)
    new = gr.Textbox(label="The new one", info="10 characters or more.", type="password", max_length=200)
    again = gr.Textbox(label="The new one again", type="password", max_length=200)
    button = gr.Button("Change the password", variant="primary", elem_classes="narrow")
    notice = build_notice()
    shell.on(button.click, change_password, ANNOTATOR, [current, new, again], [current, new, again], notice)


def change_password(visit: Visit, current: str, new: str, again: str) -> Said:
    """Change one's own password; every session ends."""
    if new != again:
        raise InvalidInputError("The two new passwords differ. Type the same twice.")
    address = visit.request.client.host if visit.request is not None and visit.request.client else ""
    visit.store.check_login(visit.user.name, current or "", address)
    visit.store.set_password(visit.user.name, new or "")
    return Said(["", "", ""], "The password is changed. Log in again with the new one.")


def _build_sessions(shell: Shell) -> gr.HTML:
    build_html(fill("panel_title.html", title="Sessions", text="The browsers in which you are logged in."))
    sessions = build_html("")
    button = gr.Button("Log out everywhere else", elem_classes="narrow")
    notice = build_notice()
    shell.on(button.click, end_other_sessions, ANNOTATOR, [], [sessions], notice)
    return sessions


def _own_secret(visit: Visit) -> str:
    if visit.request is None:
        return ""
    return str(visit.request.cookies.get(visit.context.settings.cookie_name) or "")


def _sessions_html(visit: Visit) -> str:
    return fill("sessions.html", sessions=visit.store.list_sessions(visit.user.name, _own_secret(visit)))


def end_other_sessions(visit: Visit) -> Said:
    """Log out in every other browser."""
    n_ended = visit.store.end_sessions(visit.user.name, but_secret=_own_secret(visit))
    return Said([_sessions_html(visit)], f"{n_ended} other sessions ended.")


# --- the labelling page ------------------------------------------------------------------------------------------


def _build_settings(shell: Shell) -> list[Any]:
    text = "Keys are changed on the labelling page itself, with its legend (key ?)."
    build_html(fill("panel_title.html", title="Labelling page", text=text))
    keys = build_html("")
    enabled = gr.Checkbox(True, label="Single keys answer (switch off if you use speech or another input)")
    theme = gr.Radio(THEMES, value="auto", label="Colours")
    save = gr.Button("Save", elem_classes="narrow")
    usual = gr.Button("Back to the usual keys", elem_classes="narrow")
    notice = build_notice()
    shell.on(save.click, save_settings, ANNOTATOR, [enabled, theme], [keys], notice)
    shell.on(usual.click, reset_keys, ANNOTATOR, [], [keys], notice)
    return [keys, enabled, theme]


def _keys_html(visit: Visit) -> str:
    setting = visit.store.get_setting(visit.user.name, "keys") or {}
    return fill("keys.html", keys=setting.get("keys") or {})


def save_settings(visit: Visit, enabled: bool, theme: str) -> Said:
    """Keep whether single keys answer, and the labelling page's colours."""
    check_choice(theme, [word for _, word in THEMES], "choice of colours")
    name = visit.user.name
    with visit.store.transaction():
        setting = visit.store.get_setting(name, "keys") or {}
        visit.store.put_setting(name, "keys", {**setting, "enabled": bool(enabled)})
        visit.store.put_setting(name, "theme", theme)
    return Said([_keys_html(visit)], "Saved. Labelling pages take it over when they are loaded again.")


def reset_keys(visit: Visit) -> Said:
    """Forget the changed keys."""
    with visit.store.transaction():
        setting = visit.store.get_setting(visit.user.name, "keys") or {}
        visit.store.put_setting(visit.user.name, "keys", {**setting, "keys": {}})
    return Said([_keys_html(visit)], "All keys are as usual again.")


# --- tokens ------------------------------------------------------------------------------------------------------


def _build_tokens(shell: Shell) -> tuple[gr.HTML, gr.Dropdown]:
    text = "With a token a program does what you may do. It is shown once; only its hash is kept."
    build_html(fill("panel_title.html", title="Tokens for programs", text=text))
    tokens = build_html("")
    label = gr.Textbox(label="What it is for", max_length=40)
    days = gr.Dropdown(TOKEN_DAYS, value="90", label="How long it holds", filterable=False)
    make = gr.Button("Make a token", elem_classes="narrow")
    secret = build_html("")
    number = gr.Dropdown([], label="A token to end", allow_custom_value=True)
    end = gr.Button("End it", elem_classes="narrow")
    notice = build_notice()
    shell.on(make.click, make_token, ANNOTATOR, [label, days], [tokens, number, secret, label], notice)
    shell.on(end.click, end_token, ANNOTATOR, [number], [tokens, number], notice)
    return tokens, number


def _tokens(visit: Visit) -> tuple[str, Any]:
    tokens = visit.store.list_api_tokens(visit.user.name)
    choices = [(f"{token['id']}: {token['name']}", str(token["id"])) for token in tokens]
    return fill("tokens.html", tokens=tokens), gr.update(choices=choices, value=None)


def make_token(visit: Visit, label: str, days: str) -> Said:
    """Make a token; it is shown this once."""
    check_choice(days, [word for _, word in TOKEN_DAYS], "time a token holds")
    secret = visit.store.create_api_token(visit.user.name, label or "", days=float(days))
    return Said([*_tokens(visit), fill("token.html", secret=secret), ""], "The token is below, this once.")


def end_token(visit: Visit, number: str | None) -> Said:
    """End one of one's own tokens."""
    if number not in [str(token["id"]) for token in visit.store.list_api_tokens(visit.user.name)]:
        raise InvalidInputError(f"You have no token {number or ''!r}. Choose one of the list.")
    visit.store.revoke_api_token(visit.user.name, int(number or 0))
    return Said(_tokens(visit), f"Token {number} does not work any more.")
