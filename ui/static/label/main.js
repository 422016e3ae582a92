// The labelling page: starts everything and joins the parts. What each part does is said in its own file.

import { ApiError, createRoutes } from "./api.js";
import { Exposure, Reveal, RISK_NOTICE } from "./care.js";
import { Controls, isWide } from "./controls.js";
import { Judging } from "./judging.js";
import { Bindings, Keyboard } from "./keys.js";
import { Outbox } from "./outbox.js";
import { askDialog, askLimits, askOutbox, buildLegend, questionOf, showGuideline, showLatest } from "./panels.js";
import { Prefetch } from "./prefetch.js";
import { states } from "./states.js";
import { newUuid, openStorage, Tabs } from "./tabs.js";
import { afterPaint, View } from "./view.js";

const byId = (id) => document.getElementById(id);
const RETRY_MS = 2000;
const projectName = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const loginAddress = `/login?next=${encodeURIComponent(location.pathname)}`;

class Page {
  constructor(storage) {
    this.storage = storage;
    this.tabs = new Tabs(storage);
    this.view = new View();
    this.routes = createRoutes(projectName);
    this.afterStored = new Map(); // uuid -> what is to happen once it is acknowledged
    this.problem = ""; // "", "offline", "logged_out"
  }

  /** Load who and what, again and again until the server answers; then build everything. */
  async start() {
    for (;;) {
      try {
        const [{ body: me }, { body: project }] = await Promise.all([this.routes.loadMe(), this.routes.loadProject()]);
        return this.build(me, project);
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) return location.assign(loginAddress);
        if (error instanceof ApiError && error.status < 500 && error.status !== 429) return this.view.showState(states.refused(error.message));
        this.view.showState(states.connecting());
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  build(me, project) {
    Object.assign(this, { me, project, progress: { ...project.progress }, exposure: new Exposure(project.exposure) });
    this.view.setProject(project, questionOf(project.guideline.html, project.kind));
    showGuideline(project.guideline);
    this.bindings = new Bindings(project.kind, me.keys);
    this.keyboard = new Keyboard(this.bindings, { onAction: (action) => this.act(action), onRelease: () => this.reveal.release() });
    this.keyboard.isEnabled = me.areKeysEnabled !== false;
    this.reveal = new Reveal({ onChange: (isOn) => this.view.cover(project.isSensitive && !isOn), onFirst: () => this.countReveal() });
    this.outbox = new Outbox({
      storage: this.storage, tabs: this.tabs, routes: this.routes, account: me.name, project: project.name, soon: afterPaint,
      onChange: (state) => this.outboxChanged(state), onResult: (entry, result) => this.stored(entry, result),
    });
    this.queue = new Prefetch({
      claim: (n, have) => this.claim(n, have), tabs: this.tabs, listKept: () => this.outbox.assignmentIds,
      onReady: () => this.arrived(), onReply: (reply) => this.replied(reply), onError: (error) => this.claimFailed(error),
    });
    this.judging = new Judging({
      project, view: this.view, queue: this.queue, outbox: this.outbox, reveal: this.reveal, exposure: this.exposure,
      onChange: (change) => this.judged(change), onEmpty: () => this.showNothing(), onHideKind: (uuid) => this.hideKind(uuid),
    });
    this.controls = new Controls(this);
    this.refresh();
    this.outboxChanged("saved");
    this.loadLatest();
    if (!this.needsConsent) return this.begin();
    this.outbox.pump();
    this.askConsent();
  }

  get needsConsent() {
    return this.project.isSensitive && !this.project.consent?.isGiven;
  }

  begin() {
    this.isResting = false;
    this.queue.start();
    this.showNothing();
  }

  // ------------------------------------------------------------------ the queue

  async claim(n, have) {
    // What was judged while nobody answered goes first: its lease may have ended, and the same picture would come again.
    if (!this.hasClaimed || this.outbox.state === "waiting") await this.outbox.retry();
    const { body, serverNow } = await this.routes.claim(n, have);
    this.hasClaimed = true;
    return { ...body, serverNow };
  }

  replied({ progress, exposure, reason }) {
    this.problem = "";
    if (progress && this.outbox.size === 0) this.progress = progress;
    if (exposure) this.exposure.update(exposure);
    if (reason === "consent" && !this.isResting) this.askConsent();
    this.refresh();
  }

  claimFailed(error) {
    if (!(error instanceof ApiError)) this.problem = "offline";
    else if (error.status === 401) this.problem = "logged_out";
    else if (error.status === 403 || error.status === 404) return this.view.showState(states.refused(error.message));
    else this.problem = "offline";
    if (!this.queue.current) this.showNothing();
  }

  /** A picture is ready, or the queue has changed. */
  arrived() {
    if (this.isResting || this.queue.current || this.judging.waiting || this.needsConsent) return;
    if (this.exposure.isCapReached) return this.showNothing();
    if (this.queue.slots[0]?.isReady) this.judging.next();
    else this.showNothing();
  }

  /** There is no picture to show: say why. */
  showNothing() {
    if (this.isResting) return;
    const n = this.outbox.size;
    const look = () => this.begin();
    const { problem, queue } = this;
    if (this.exposure.isCapReached || queue.reason === "cap") this.view.showState(states.cap(this.exposure.minutes));
    else if (problem === "logged_out") this.view.showState(states.loggedOut(n, loginAddress));
    else if (problem === "offline" || navigator.onLine === false) this.view.showState(states.offline(n, () => this.tryAgain()));
    else if (!queue.isEmpty || queue.isAsking || queue.reason === null) this.view.showState(states.loading());
    else if (queue.reason === "break") this.stayResting();
    else if (queue.reason === "finished" && this.progress.total === 0) this.view.showState(states.empty(look));
    else if (queue.reason === "finished") this.showFinished(look);
    else this.view.showState(states.waiting(look));
  }

  async showFinished(look) {
    this.view.showState(states.finished(this.progress.mine, [], look));
    try {
      const { body } = await this.routes.loadProjects();
      const others = body.projects.filter(({ name, project, total }) => name !== this.project.name && project < total);
      if (others.length > 0 && this.view.stateName === "finished") this.view.showState(states.finished(this.progress.mine, others, look));
    } catch {
      // Where else there is work is only a courtesy.
    }
  }

  tryAgain() {
    this.outbox.retry();
    this.queue.fill();
  }

  // ------------------------------------------------------------------ the outbox

  outboxChanged(state) {
    const entries = this.outbox?.list() ?? [];
    this.view.setUnsent(entries.length, entries.filter((entry) => entry.refused).length, state);
    if (state === "logged_out" && this.view.stateName === "hiding") this.view.showState(states.loggedOut(entries.length, loginAddress));
    else if (state === "logged_out" && this.lastOutboxState !== "logged_out" && this.queue.current) {
      const login = { label: "Log in", run: () => location.assign(loginAddress), seconds: 60 };
      this.view.toast("You are logged out. What you judge is kept here until you log in again.", login);
    }
    if (state === "other_account" && this.lastOutboxState !== "other_account") this.stopForOther(entries.length);
    if (state === "saved" && this.lastOutboxState === "waiting") this.view.toast("Connected again. Everything is stored.");
    this.lastOutboxState = state === "sending" ? this.lastOutboxState : state;
  }

  /** Somebody else logged in on this browser: whatever is claimed from now on would be theirs. */
  stopForOther(n) {
    this.isResting = true;
    this.queue.stop({ drop: true });
    this.queue.current = null;
    this.view.showState(states.otherAccount(n));
  }

  stored(entry, result) {
    this.afterStored.get(entry.uuid)?.();
    this.afterStored.delete(entry.uuid);
    if (result.feedback) this.judging.showFeedback(entry.uuid, result.feedback);
    if (result.status === "expired") this.view.toast(result.message || "Others have answered one picture in the meantime.");
    if (result.status === "conflict") this.view.toast("One picture was judged already, in another window; that answer stands.");
    if (result.status === "invalid") {
      this.view.toast(`One judgment was refused: ${result.message}`, { label: "Look", run: () => this.showOutbox(), seconds: 20 });
    }
  }

  async showOutbox() {
    const pressed = await askOutbox(this.outbox.list(), this.outbox.state);
    if (pressed === "outbox-retry") this.tryAgain();
    if (pressed === "outbox-drop") this.outbox.dropRefused();
  }

  // ------------------------------------------------------------------ after each answer

  judged(change) {
    this.progress.mine = Math.max(0, this.progress.mine + change);
    if (this.exposure.isCapReached) this.stopForToday();
    if (this.isRefreshing) return;
    this.isRefreshing = true;
    afterPaint(() => {
      this.isRefreshing = false;
      this.refresh();
      this.outboxChanged(this.outbox.state);
      if (this.exposure.isBreakDue) this.offerBreak();
    });
  }

  refresh() {
    this.view.setProgress(this.progress);
    const { minutes, revealed } = this.exposure;
    this.view.setExposure(this.project.isSensitive ? `today ${minutes} min · ${revealed} uncovered` : "");
    showLatest((this.judging?.latest ?? []).slice(0, 10), (entry) => this.edit(entry));
  }

  async loadLatest() {
    try {
      const { body } = await this.routes.loadLatest();
      const known = new Set(this.judging.latest.map((entry) => entry.uuid));
      const earlier = body.judgments.filter(({ uuid }) => !known.has(uuid)).map(fromLatest);
      this.judging.latest.push(...earlier);
      this.refresh();
    } catch {
      // The list fills up as one judges.
    }
  }

  edit(entry) {
    if (this.isResting || this.needsConsent) return;
    if (!isWide()) this.controls.setSide(false);
    this.judging.edit(entry);
  }

  // ------------------------------------------------------------------ care

  countReveal() {
    if (!this.project.isSensitive) return;
    this.exposure.revealed += 1;
    this.exposure.act();
    this.refresh();
  }

  offerBreak() {
    this.exposure.rest(10);
    this.view.toast(`You have been at it for ${this.exposure.breakAfterMinutes} minutes. A short break?`, { label: "Take a break", run: () => this.rest(), seconds: 30 });
  }

  stopForToday() {
    this.queue.stop({ drop: true });
    this.queue.current = null;
    this.routes.pause().catch(() => {});
    this.showNothing();
  }

  /** A break: nothing on the screen, the leases given back. */
  rest() {
    if (this.view.stateName === "break") return this.resume();
    if (this.isResting || this.needsConsent) return;
    this.isResting = true;
    this.judging.waiting = null;
    this.queue.stop({ drop: true });
    this.queue.current = null;
    this.reveal.reset();
    this.view.hideToast();
    const minutes = Math.floor(this.exposure.sinceBreakMs / 60_000);
    this.exposure.rest();
    this.view.showState(states.pause(this.outbox.size, minutes, () => this.resume()));
    this.outbox.pump().then(() => this.routes.pause()).catch(() => {});
  }

  /** A break with a set end, begun on another page, goes on here. */
  stayResting() {
    this.isResting = true;
    this.queue.stop({ drop: true });
    this.view.showState(states.pause(this.outbox.size, 0, () => this.resume()));
  }

  async resume() {
    this.exposure.rest();
    if (this.queue.reason === "break") await this.routes.pause().catch(() => {});
    this.begin();
  }

  /** The kind is refused: what is ahead may be of it, so it is dropped, and asked for anew once the server knows. */
  hideKind(uuid) {
    this.isResting = true;
    this.view.showState(states.hiding());
    this.afterStored.set(uuid, () => this.begin());
  }

  askConsent() {
    this.queue.stop({ drop: true });
    this.queue.current = null;
    const { consent, categories } = this.project;
    const notice = { wording: consent?.wording || RISK_NOTICE, categories };
    const decline = () => this.routes.giveConsent(false).catch(() => {}).finally(() => location.assign("/"));
    this.view.showState(states.consent(notice, { accept: () => this.accept(), decline, limits: () => this.limits() }));
  }

  async accept() {
    try {
      await this.routes.giveConsent(true);
      this.project.consent = { ...this.project.consent, isGiven: true };
      this.begin();
    } catch (error) {
      this.view.toast(`That could not be stored: ${error.message} Please try again.`);
    }
  }

  async limits() {
    const chosen = await askLimits(this.project.categories, this.project.optOuts ?? []);
    if (chosen === null) return;
    try {
      await this.routes.saveOptOuts(chosen);
      this.project.optOuts = chosen;
      this.view.toast("Kept. Pictures of these kinds are not given to you.");
      if (this.needsConsent || this.isResting) return;
      this.queue.stop({ drop: true });
      this.queue.current = null;
      this.begin();
    } catch (error) {
      this.view.toast(`That could not be stored: ${error.message} Please try again.`);
    }
  }

  async report() {
    const slot = this.queue.current;
    if (!slot) return this.view.toast("There is no picture to report.");
    const pressed = await askDialog("report-dialog", ["report-yes", "report-no"]);
    if (pressed !== "report-yes" || this.queue.current !== slot) return;
    this.outbox.add({ op: "report", uuid: newUuid(), assignmentId: slot.assignment.id, note: "" });
    this.judging.latest = this.judging.latest.filter((entry) => entry.assignment.itemId !== slot.assignment.itemId);
    this.refresh();
    this.queue.current = null;
    this.isResting = true;
    this.queue.stop();
    this.view.showState({ ...states.reported(), actions: [{ label: "Go on", run: () => this.begin(), isPrimary: true }, { label: "Take a break", run: () => this.restAfterReport() }] });
  }

  restAfterReport() {
    this.isResting = false;
    this.rest();
  }

  async logout() {
    await this.outbox.retry();
    const n = this.outbox.size;
    if (n > 0) {
      byId("logout-text").textContent = `${n === 1 ? "1 judgment" : `${n} judgments`} could not be sent yet. Logged out, this browser forgets them.`;
      if ((await askDialog("logout-dialog", ["logout-discard", "logout-stay"])) !== "logout-discard") return;
    }
    this.queue.stop({ drop: true });
    try {
      await this.routes.pause().catch(() => {});
      await this.routes.logout();
      this.outbox.clear();
      location.assign("/login");
    } catch {
      this.queue.start();
      this.view.toast("The server can't be reached, so you are still logged in. Nothing was discarded.");
    }
  }

  // ------------------------------------------------------------------ keys, buttons, the world outside

  act(action) {
    if (action === "cancel" && this.controls.isMenuOpen) return this.controls.setMenu(false);
    if (action === "cancel" && !isWide() && this.controls.isSideOpen) return this.controls.setSide(false);
    const acts = {
      reveal: () => this.queue.current && this.project.isSensitive && this.reveal.press(),
      guidelines: () => this.controls.setSide(!this.controls.isSideOpen),
      break: () => this.rest(),
      legend: () => this.legend(),
      limits: () => this.limits(),
      theme: () => this.controls.nextTheme(),
      report: () => this.report(),
      logout: () => this.logout(),
    };
    if (typeof action === "string" && acts[action]) return acts[action]();
    if (!this.isResting && !this.needsConsent) this.judging.press(action);
  }

  legend() {
    buildLegend(this.bindings, () => this.keysChanged());
    byId("legend-message").textContent = "";
    byId("keys-enabled").checked = this.keyboard.isEnabled;
    byId("reveal-mode-row").hidden = !this.project.isSensitive;
    byId("legend-dialog").showModal();
  }

  async keysChanged() {
    this.controls.buildButtons();
    buildLegend(this.bindings, () => this.keysChanged());
    try {
      await this.routes.saveKeys(this.bindings.changed, this.keyboard.isEnabled);
    } catch {
      this.view.toast("The keys are changed on this page, but could not be stored.");
    }
  }
}

/** A row of the server's list in the form that this page keeps. */
function fromLatest({ uuid, assignmentId, itemId, kind, prompt, images, shownOrder, answer, categories, score, ranks, reason }) {
  const assignment = { id: assignmentId, itemId, kind, purpose: "normal", prompt, images, shownOrder };
  return { uuid, assignment, answer: { answer, categories, score, ranks, reason }, supersedes: "" };
}

new Page(openStorage()).start();
