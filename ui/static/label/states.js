// What is said when there is no picture to show. Each says what is the matter, what became of the work, and what to do.

import { make } from "./view.js";

const kept = (n) => (n > 0 ? `${n === 1 ? "1 judgment is" : `${n} judgments are`} kept in this browser and sent by themselves once that is possible.` : "Everything you judged is stored.");

export const states = {
  loading: () => ({ name: "loading", title: "Fetching pictures", focus: false }),

  connecting: () => ({ name: "connecting", title: "Looking for the server", paragraphs: ["It does not answer at the moment. This page tries again by itself."] }),

  offline: (n, retry) => ({
    name: "offline",
    title: "No connection",
    paragraphs: [kept(n), "The page goes on by itself when the connection is back. You may close it, too."],
    actions: [{ label: "Try now", run: retry, isPrimary: true }],
  }),

  loggedOut: (n, login) => ({
    name: "logged-out",
    title: "You are logged out",
    paragraphs: [n > 0 ? `${n === 1 ? "1 judgment is" : `${n} judgments are`} kept in this browser and sent once you log in again.` : "Everything you judged is stored."],
    actions: [{ label: "Log in", href: login, isPrimary: true }],
  }),

  otherAccount: (n) => ({
    name: "other-account",
    title: "Another account is logged in",
    paragraphs: [
      `Somebody else has logged in on this browser. ${n === 1 ? "1 judgment of yours is" : `${n} judgments of yours are`} kept and sent once you are back.`,
    ],
    actions: [{ label: "Open the page as that account", href: "", isPrimary: true }, { label: "Log out", href: "/logout" }],
  }),

  refused: (message) => ({
    name: "refused",
    title: "This page is not for you",
    paragraphs: [message],
    actions: [{ label: "Your projects", href: "/", isPrimary: true }],
  }),

  empty: (look) => ({
    name: "empty",
    title: "No pictures yet",
    paragraphs: ["This project has nothing to judge yet. The people who run it add the pictures."],
    actions: [{ label: "Look again", run: look, isPrimary: true }, { label: "Your projects", href: "/" }],
  }),

  finished: (mine, others, look) => ({
    name: "finished",
    title: "That was all",
    paragraphs: [
      `There is nothing left for you here. You judged ${mine === 1 ? "1 picture" : `${mine} pictures`} in this project: thank you.`,
      ...(others.length > 0 ? ["Elsewhere there is more:", projectLinks(others)] : []),
    ],
    actions: [{ label: "Your projects", href: "/", isPrimary: others.length === 0 }, { label: "Look again", run: look }],
  }),

  waiting: (look) => ({
    name: "waiting",
    title: "The rest is with other people",
    paragraphs: ["What is left has been given to others. If they don't get to it, it comes to you; this page looks by itself."],
    actions: [{ label: "Look again", run: look, isPrimary: true }, { label: "Your projects", href: "/" }],
  }),

  cap: (minutes) => ({
    name: "cap",
    title: "Enough for today",
    paragraphs: [`You have looked at pictures for ${minutes} minutes today, and that is the limit. Everything you judged is kept. Tomorrow there is more.`],
    actions: [{ label: "Your projects", href: "/", isPrimary: true }],
  }),

  pause: (n, minutes, goOn) => ({
    name: "break",
    title: "A break",
    paragraphs: [minutes > 0 ? `You have been at it for ${minutes === 1 ? "a minute" : `${minutes} minutes`}. Look out of the window for a while.` : "Take the time you need.", kept(n)],
    actions: [{ label: "Go on", run: goOn, isPrimary: true }, { label: "Your projects", href: "/" }],
  }),

  hiding: () => ({ name: "hiding", title: "Noted", paragraphs: ["Pictures of that kind are not given to you any more. Others come as soon as the server has noted it."], focus: false }),

  reported: () => ({ name: "reported", title: "Hidden", paragraphs: ["The picture is hidden from everyone. Take a breath; the next one comes when you go on."] }),

  consent: ({ wording, categories }, { accept, decline, limits }) => ({
    name: "consent",
    title: "Before you begin",
    paragraphs: [
      ...wording.split(/\n{2,}/),
      ...(categories.length > 0 ? [`Kinds of content you may meet: ${categories.join(", ")}.`] : []),
    ],
    actions: [
      { label: "I have read this and want to go on", run: accept, isPrimary: true },
      ...(categories.length > 0 ? [{ label: "Choose what I don't want to see", run: limits }] : []),
      { label: "No, thank you", run: decline },
    ],
  }),
};

function projectLinks(projects) {
  const rows = projects.slice(0, 5).map(({ name }) => make("li", {}, make("a", { href: `/label/${encodeURIComponent(name)}` }, name)));
  return make("ul", { class: "links" }, ...rows);
}
