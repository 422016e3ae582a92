"""People: who may come in and what they may; inviting by a link that works once."""

from __future__ import annotations

from typing import Any

import gradio as gr

from storage.errors import InvalidInputError
from storage.records import ROLES
from ui.pages.frame import OWNER, Said, Shell, Visit, build_header, build_html, build_notice, build_title, fill, on_load

ROLE_CHOICES = [
    ("Annotator: judges", "annotator"),
    ("Reviewer: sees quality and decides", "reviewer"),
    ("Researcher: projects, images, export, jobs", "researcher"),
    ("Owner: people too", "owner"),
]


def build_people(shell: Shell) -> None:
    """The page for owners."""
    build_header(shell, "people")
    with gr.Column(elem_id="main"):
        build_title("People", "Who may come in, and what each of them may do. Names are pseudonyms, never real ones.")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="panel"):
                invitations, number = _build_invite(shell)
            with gr.Column(min_width=300, elem_classes="panel"):
                person, change = _build_change()
        people = build_html(fill("waiting.html"))
    on_load(shell, show_people, OWNER, [people, person, invitations, number])
    role, set_role_button, disable, enable, password, set_password_button, notice = change
    outputs = [people, person]
    shell.on(set_role_button.click, set_role, OWNER, [person, role], outputs, notice)
    shell.on(disable.click, disable_person, OWNER, [person], outputs, notice)
    shell.on(enable.click, enable_person, OWNER, [person], outputs, notice)
    shell.on(set_password_button.click, give_password, OWNER, [person, password], [password], notice)


def _build_invite(shell: Shell) -> tuple[gr.HTML, gr.Dropdown]:
    build_html(fill("panel_title.html", title="Invite", text="The link works once, for whoever opens it first."))
    role = gr.Radio(ROLE_CHOICES, value="annotator", label="As", elem_classes="column-choice")
    days = gr.Number(7, label="Days it holds", precision=0, minimum=1, maximum=90)
    button = gr.Button("Make a link", variant="primary", elem_classes="narrow")
    notice = build_notice()
    link = build_html("")
    invitations = build_html("")
    number = gr.Dropdown([], label="A link to end", allow_custom_value=True)
    end = gr.Button("End it", elem_classes="narrow")
    shell.on(button.click, invite, OWNER, [role, days], [link, invitations, number], notice)
    shell.on(end.click, end_invitation, OWNER, [number], [invitations, number], notice)
    return invitations, number


def _build_change() -> tuple[gr.Dropdown, tuple[Any, ...]]:
    build_html(fill("panel_title.html", title="Change", text="What somebody judged stays, whatever is changed here."))
    person = gr.Dropdown([], label="Who", allow_custom_value=True)
    role = gr.Dropdown(list(ROLES), value="annotator", label="Role", filterable=False)
    set_role_button = gr.Button("Give this role", elem_classes="narrow")
    with gr.Row():
        disable = gr.Button("Keep them out", variant="stop")
        enable = gr.Button("Let them in again")
    password = gr.Textbox(label="A new password for them", type="password", max_length=200)
    set_password_button = gr.Button("Set the password", elem_classes="narrow")
    return person, (role, set_role_button, disable, enable, password, set_password_button, build_notice())


def show_people(visit: Visit) -> tuple[str, Any, str, Any]:
    """Everybody, whom one can change, and the links nobody has used yet."""
    return (*_people(visit), *_invitations(visit))


def _people(visit: Visit) -> tuple[str, Any]:
    users = visit.store.list_users()
    names = [user.name for user in users if not user.is_simulated]
    return fill("people.html", users=users, own=visit.user.name), gr.update(choices=names)


def _invitations(visit: Visit) -> tuple[str, Any]:
    invitations = visit.store.list_invitations()
    choices = [(f"{invitation.id}: {invitation.role}", str(invitation.id)) for invitation in invitations]
    return fill("invitations.html", invitations=invitations), gr.update(choices=choices, value=None)


def invite(visit: Visit, role: str, days: float | None) -> Said:
    """Make a link; it is shown this once, only its hash is kept."""
    secret = visit.store.create_invitation(role or "", visit.user.name, days=float(days or 0))
    link = fill("invitation_link.html", address=f"{_own_address(visit)}/join/{secret}", role=role)
    return Said([link, *_invitations(visit)], "The link is below. It is shown this once.")


def _own_address(visit: Visit) -> str:
    """How the browser reached these pages."""
    headers = visit.request.headers if visit.request is not None else {}
    return str(headers.get("origin") or f"http://{headers.get('host', 'localhost')}")


def end_invitation(visit: Visit, number: str | None) -> Said:
    """End a link that nobody has used yet."""
    if number not in [str(invitation.id) for invitation in visit.store.list_invitations()]:
        raise InvalidInputError(f"There is no open link {number or ''!r}. Choose one of the list.")
    visit.store.revoke_invitation(int(number or 0), visit.user.name)
    return Said(_invitations(visit), f"Link {number} does not work any more.")


def set_role(visit: Visit, name: str, role: str) -> Said:
    """Give somebody another role."""
    user = visit.store.set_role(name or "", role or "", visit.user.name)
    return Said(_people(visit), f"{user.name!r} is {user.role} now.")


def disable_person(visit: Visit, name: str) -> Said:
    """Log somebody out everywhere and keep them out."""
    user = visit.store.disable_account(name or "", visit.user.name)
    return Said(_people(visit), f"{user.name!r} is kept out. What they judged stays.")


def enable_person(visit: Visit, name: str) -> Said:
    """Let somebody in again."""
    user = visit.store.enable_account(name or "", visit.user.name)
    if user.is_disabled:
        raise InvalidInputError(f"The work of {user.name!r} was withdrawn; that is for good. Invite them anew.")
    return Said(_people(visit), f"{user.name!r} may come in again.")


def give_password(visit: Visit, name: str, password: str) -> Said:
    """Set a password for somebody who has forgotten theirs; they are logged out everywhere."""
    visit.store.set_password(name or "", password or "", visit.user.name)
    return Said([""], f"{name!r} has the new password and is logged out everywhere.")
