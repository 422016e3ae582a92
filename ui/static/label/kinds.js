// The four kinds of question: what can be answered, and how presses grow into an answer.
//
// A kind is `{actions, start, press, back, showDraft}`. `press(draft, action, context)` returns an answer when one is complete
// ({answer, categories, score, ranks}; places as shown) and otherwise null, with the draft changed or not.
// `context` is {categories, n}: the project's categories and how many pictures the item has.

const plain = (answer) => ({ answer, categories: [], score: null, ranks: [] });
const yes = (categories) => ({ ...plain("yes"), categories });

const flag = {
  start: () => ({ isYes: false, categories: [] }),
  press(draft, action, { categories }) {
    if (action === "no") return plain("no");
    if (action === "yes" || (action === "finish" && draft.isYes)) {
      if (categories.length === 0 || draft.isYes) return yes(draft.categories);
      draft.isYes = true;
      return null;
    }
    const category = categories[(action.digit ?? 0) - 1];
    if (category === undefined) return null;
    if (!draft.isYes) return yes([category]);
    const isChosen = draft.categories.includes(category);
    draft.categories = isChosen ? draft.categories.filter((name) => name !== category) : [...draft.categories, category];
    return null;
  },
  back(draft) {
    const hadStarted = draft.isYes;
    Object.assign(draft, flag.start());
    return hadStarted;
  },
};

const score = {
  start: () => ({}),
  press(_draft, action) {
    return action.digit >= 1 && action.digit <= 5 ? { ...plain("scored"), score: action.digit } : null;
  },
  back: () => false,
};

const PAIR_ANSWERS = { left: "first", right: "second", both_fine: "both_fine", both_bad: "both_bad", tie: "tie" };
const pair = {
  start: () => ({}),
  press: (_draft, action) => (PAIR_ANSWERS[action] ? plain(PAIR_ANSWERS[action]) : null),
  back: () => false,
};

// The draft of a ranking: which place was chosen when, and whether it ties with the one chosen before.
const ranking = {
  start: () => ({ chosen: [], isTie: false }),
  press(draft, action, { n }) {
    if (action === "none") return plain("none");
    if (action === "tie") {
      draft.isTie = draft.chosen.length > 0 && !draft.isTie;
      return null;
    }
    if (action === "finish") return draft.chosen.length > 0 ? ranked(draft, n) : null;
    const place = (action.digit ?? 0) - 1;
    if (place < 0 || place >= n || draft.chosen.some((choice) => choice.place === place)) return null;
    draft.chosen = [...draft.chosen, { place, isTie: draft.isTie }];
    draft.isTie = false;
    return draft.chosen.length === n ? ranked(draft, n) : null;
  },
  back(draft) {
    if (draft.isTie) {
      draft.isTie = false;
      return true;
    }
    const hadStarted = draft.chosen.length > 0;
    draft.chosen = draft.chosen.slice(0, -1);
    return hadStarted;
  },
};

/** One rank a place, 1 = best, equal ranks tie; places not chosen yet get 0. */
export function ranksOf(draft, n) {
  const ranks = Array(n).fill(0);
  let rank = 0;
  for (const { place, isTie } of draft.chosen) {
    if (!isTie) rank += 1;
    ranks[place] = rank;
  }
  return ranks;
}

/** Whatever was not chosen shares the last rank. */
function ranked(draft, n) {
  const ranks = ranksOf(draft, n);
  const last = Math.max(...ranks) + 1;
  return { ...plain("ranked"), ranks: ranks.map((rank) => rank || last) };
}

export const kinds = { flag, score, pair, ranking };

/** Answers that every kind takes, by action; `skip` comes with a reason. */
export const OTHER_ANSWERS = { unsure: "unsure", broken: "broken", hide_kind: "hide_kind" };
export const otherAnswer = (action, reason = "") => ({ ...plain(action), reason });

const WORDS = {
  yes: "Yes",
  no: "No",
  first: "First is better",
  second: "Second is better",
  both_fine: "Both fine",
  both_bad: "Both bad",
  tie: "Equal",
  none: "None is good",
  unsure: "Unsure",
  skip: "Skipped",
  broken: "Broken picture",
  hide_kind: "Not this kind",
};

/** An answer in words, as the last-ten list and screen readers say it. */
export function describe({ answer, categories = [], score: points = null, ranks = [], reason = "" }) {
  if (answer === "scored") return `Score ${points}`;
  if (answer === "ranked") return `Order ${inOrder(ranks)}`;
  const more = [...categories, reason].filter(Boolean).join(", ");
  return more ? `${WORDS[answer]} · ${more}` : (WORDS[answer] ?? answer);
}

/** Ranks as the places in order of choice: [2, 1, 2] is "2, 1 = 3". */
function inOrder(ranks) {
  const groups = [...new Set(ranks)].sort((one, other) => one - other);
  const places = (rank) => ranks.flatMap((value, place) => (value === rank ? [place + 1] : []));
  return groups.map((rank) => places(rank).join(" = ")).join(", ");
}

/** The buttons of a kind: main ones, and those beside them. `digit` stands where a digit is the key. */
export function buttonsOf(kind, { n, categories }) {
  const other = [
    { action: "unsure", label: "Unsure" },
    { action: "skip", label: "Skip" },
    { action: "broken", label: "Broken picture", narrowLabel: "Broken" },
    { action: "hide_kind", label: "Not this kind", narrowLabel: "Not this" },
    { action: "undo", label: "Undo" },
  ];
  if (kind === "flag") {
    return { main: [{ action: "no", label: "No" }, { action: "yes", label: "Yes" }], extras: categories.slice(0, 9).map((label, index) => ({ digit: index + 1, label })), other };
  }
  if (kind === "score") {
    return { main: [1, 2, 3, 4, 5].map((digit) => ({ digit, label: String(digit) })), extras: [], other };
  }
  if (kind === "pair") {
    const main = [{ action: "left", label: "Left", stackedLabel: "Upper" }, { action: "right", label: "Right", stackedLabel: "Lower" }];
    const extras = [{ action: "both_fine", label: "Both fine" }, { action: "tie", label: "Equal" }, { action: "both_bad", label: "Both bad" }];
    return { main, extras, other };
  }
  const main = Array.from({ length: n }, (_, index) => ({ digit: index + 1, label: String(index + 1) }));
  const extras = [{ action: "tie", label: "Next one ties" }, { action: "finish", label: "The rest are equal" }, { action: "none", label: "None is good" }];
  return { main, extras, other };
}
