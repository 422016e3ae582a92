// The server's routes as functions. Two ways to fail: nothing (of ours) answered, or the server refused.

/** Nobody answered, or something that is not our server did (a captive portal, a proxy's error page). */
export class NetworkError extends Error {}

/** The server answered with a refusal: `status`, and its `code`, `message` and `field`. */
export class ApiError extends Error {
  constructor(status, { code = "", message = "", field = "" } = {}) {
    super(message || `The server answered ${status}.`);
    Object.assign(this, { status, code, field });
  }
}

const TIMEOUT_MS = 20_000;

/**
 * Ask the server.
 * @returns {Promise<{body: any, serverNow: number}>} `serverNow`: the server's clock, milliseconds since 1970.
 * @throws {NetworkError | ApiError}
 */
export async function request(method, path, body, { keepalive = false, mayRedirect = false } = {}) {
  const options = { method, keepalive, redirect: "manual", cache: "no-store", credentials: "same-origin", headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const giveUp = new AbortController();
  const timer = setTimeout(() => giveUp.abort(), TIMEOUT_MS);
  try {
    return await read(await fetch(path, { ...options, signal: giveUp.signal }), mayRedirect);
  } catch (error) {
    throw error instanceof ApiError ? error : new NetworkError(error.message);
  } finally {
    clearTimeout(timer);
  }
}

async function read(response, mayRedirect) {
  if (mayRedirect && response.type === "opaqueredirect") return { body: null, serverNow: Date.now() };
  const isJson = (response.headers.get("Content-Type") || "").includes("application/json");
  if (!response.ok) {
    if (response.status === 0) throw new NetworkError("The answer was a redirection.");
    const refusal = isJson ? await response.json().catch(() => ({})) : {};
    throw new ApiError(response.status, refusal.error ?? {});
  }
  if (response.status === 204) return { body: null, serverNow: clockOf(response) };
  if (!isJson) throw new NetworkError("The answer did not come from this server.");
  return { body: await response.json(), serverNow: clockOf(response) };
}

function clockOf(response) {
  const time = Date.parse(response.headers.get("Date") ?? "");
  return Number.isNaN(time) ? Date.now() : time;
}

/** The routes that a project's page uses. */
export function createRoutes(project) {
  const base = `/api/v1/projects/${encodeURIComponent(project)}`;
  return {
    loadMe: () => request("GET", "/api/v1/me"),
    saveKeys: (keys, enabled) => request("PUT", "/api/v1/me/keys", { keys, enabled }),
    loadProjects: () => request("GET", "/api/v1/projects"),
    loadProject: () => request("GET", base),
    giveConsent: (isGiven) => request("POST", `${base}/consent`, { isGiven }),
    saveOptOuts: (categories) => request("PUT", `${base}/opt-outs`, { categories }),
    claim: (n, have) => request("POST", `${base}/claim`, { n, have }),
    loadLatest: () => request("GET", `${base}/latest?n=10`),
    pause: () => request("POST", `${base}/pause`, { minutes: 0 }),
    saveTheme: (theme) => request("PUT", "/api/v1/me/theme", { theme }),
    submit: (account, judgments, options) => request("POST", "/api/v1/judgments", { account, judgments }, options),
    undo: (uuid, undoUuid) => request("POST", `/api/v1/judgments/${uuid}/undo`, { undoUuid }),
    report: (assignmentId, note) => request("POST", `/api/v1/items/${assignmentId}/report`, { note }),
    logout: () => request("POST", "/logout", {}, { mayRedirect: true }),
  };
}
