import { type Address, formatAddress, isSameAddress } from "./address.ts";
import { Connection, hasPeerLeft, isOwnError } from "./connection.ts";
import { Datagram } from "./datagram.ts";
import { IncompleteReadError, SocketError } from "./errors.ts";
import { printable, printableLines } from "./printable.ts";
import { describe, isError, isInstance, propertyOf } from "./thrown.ts";

/** How much of an error is worth printing. */
export type Detail = "none" | "line" | "stack";

/** Of the request's own connection: the peer has left, and that is all there is to say. */
const PEER_LEFT = new Set(["ECONNRESET", "EPIPE", "ENOTCONN"]);
/** Of a reply to a datagram: there is nobody, or nobody any more, who could get it. */
const NOBODY_THERE = new Set(["ECONNREFUSED", "ECONNRESET", "EDESTADDRREQ", "ENOENT"]);
/** What the program did wrong itself, also with its own peer. */
const PROGRAMS_OWN: Record<"connection" | "datagram", ReadonlySet<string>> = {
  connection: new Set(["ECONNABORTED"]),
  datagram: new Set(["EMSGSIZE", "ECONNABORTED"]),
};
/** What the system has run out of, and what helps. */
const EXHAUSTED: Record<string, string> = {
  EMFILE: "raise `ulimit -n` (LimitNOFILE= of systemd), or lower maxConnections",
  ENFILE: "raise the system's fs.file-max, or end what holds so many files",
  ENOBUFS: "lower maxConnections or maxTotalBackpressure, or give the machine more memory",
  ENOMEM: "lower maxConnections or maxTotalBackpressure, or give the machine more memory",
  ENOSPC: "make room on the disk",
  EDQUOT: "make room within the quota, or raise it",
};
const NO_PROCESS = "raise `ulimit -u` (TasksMax= of systemd), or lower maxChildren or maxThreads";

/** Characters of one report. */
const MAX_REPORT_CHARACTERS = 16_384;
/** Errors of a chain of causes. */
const MAX_CAUSES = 8;

/**
 * How much of an error `handleError()` prints by default; README.md has it as a table.
 *
 * - Of the request's own peer: nothing when it has only left, else a line. Another socket's error, of a database say, is not its peer's.
 * - Of the system, which has run out of something, and of the server's own socket: a line.
 * - All else is the program's: its stack.
 *
 * @param request The request; `null` when the error belongs to none.
 * @param error What was thrown.
 */
export function detailOf(request: unknown, error: unknown): Detail {
  const code = codeOf(error);
  if (isInstance(error, SocketError) && code !== null) {
    if (request instanceof Connection && isOwnError(request, error)) {
      // Between two messages.
      if (isInstance(error, IncompleteReadError) && error.partial.length === 0) return "none";
      // With the peer still there, it is a write after the program's own closeWrite().
      if (PEER_LEFT.has(code)) return code === "EPIPE" && !hasPeerLeft(request) ? "stack" : "none";
      return PROGRAMS_OWN.connection.has(code) ? "stack" : "line";
    }
    if (request instanceof Datagram && isOwnReply(request, error)) {
      if (NOBODY_THERE.has(code)) return "none";
      return PROGRAMS_OWN.datagram.has(code) ? "stack" : "line";
    }
    if (request === null) return "line";
  }
  if (adviceOn(error) !== null) return "line";
  if (!isInstance(error, AggregateError)) return "stack";
  // A handler has failed, and its finish() too, as when both write to a peer that has left.
  const details = errorsOf(error).map((each) => detailOf(request, each));
  if (details.length === 0 || details.includes("stack")) return "stack";
  return details.includes("line") ? "line" : "none";
}

/**
 * What `handleError()` prints by default; `null` for nothing. What a peer has chosen of it forges no line and steers no terminal.
 *
 * @param serverAddress Where the server listens.
 * @param request The request; `null` when the error belongs to none.
 * @param clientAddress Who sent it.
 * @param error What was thrown.
 */
export function reportOf(
  serverAddress: Address,
  request: unknown,
  clientAddress: Address | null,
  error: unknown,
): string | null {
  const detail = detailOf(request, error);
  if (detail === "none") return null;
  const server = formatAddress(serverAddress);
  const unnamed = request instanceof Connection ? "an unnamed peer" : "an anonymous sender";
  const client = clientAddress === null || isUnnamed(clientAddress) ? unnamed : formatAddress(clientAddress);
  if (detail === "stack") {
    const what = request === null
      ? `Exception occurred on ${server}`
      : `Exception occurred on ${server} during processing of request from ${client}`;
    return framed(what, error);
  }
  const whose = request === null ? "" : `request from ${client}: `;
  const shown = isInstance(error, AggregateError) ? errorsOf(error).find((each) => detailOf(request, each) === "line") : error;
  const advice = adviceOn(shown);
  return cut(
    printable(
      `${server}: ${whose}${lineOf(shown, request instanceof Connection ? request.remoteAddress : clientAddress)}${
        advice === null ? "" : ` (${advice})`
      }`,
    ),
  );
}

/** A report of several lines, marked as one; only its own begin at the left. */
export function framed(what: string, error: unknown): string {
  const line = "-".repeat(40);
  return `${line}\n${printable(what)}\n${cut(indented(traceOf(error, MAX_CAUSES)))}\n${line}`;
}

/** Whether an error came of a reply to this datagram. */
function isOwnReply({ address }: Datagram, { code, address: about }: SocketError): boolean {
  if (about === undefined || address === null) return code === "EDESTADDRREQ";
  return isSameAddress(about, address);
}

function isUnnamed(address: Address): boolean {
  return "path" in address && address.path === "";
}

function codeOf(error: unknown): string | null {
  const code = propertyOf(error, "code");
  return typeof code === "string" ? code : null;
}

/** What helps when the system has run out of something; `null` when it is another error. */
function adviceOn(error: unknown): string | null {
  const code = codeOf(error);
  if (code === null) return null;
  if (code === "EAGAIN" && String(propertyOf(error, "syscall")).startsWith("spawn")) return NO_PROCESS;
  return Object.hasOwn(EXHAUSTED, code) ? EXHAUSTED[code]! : null;
}

/** An error in one line. */
function lineOf(error: unknown, peer: Address | null): string {
  // The line names the peer already.
  const message = messageOf(error);
  const suffix = peer === null ? "" : `, ${formatAddress(peer)}`;
  return suffix !== "" && message.endsWith(suffix) ? message.slice(0, -suffix.length) : message;
}

function messageOf(error: unknown): string {
  const message = propertyOf(error, "message");
  return typeof message === "string" ? message : describe(error);
}

function errorsOf(error: AggregateError): unknown[] {
  try {
    return Array.from(error.errors);
  } catch {
    // It was changed to what can't be listed.
    return [];
  }
}

/** The stack of an error and of what caused it. */
function traceOf(error: unknown, left: number): string {
  if (!isError(error)) return detailsOf(error);
  const name = String(propertyOf(error, "name") ?? "Error");
  const message = messageOf(error);
  const head = message === "" ? name : `${name}: ${message}`;
  const stack = propertyOf(error, "stack");
  const lines = [typeof stack !== "string" || stack === "" ? head : stack.includes(message) ? stack : `${head}\n${stack}`];
  if (left === 0) return lines[0]!;
  for (const each of isInstance(error, AggregateError) ? errorsOf(error).slice(0, left) : []) {
    lines.push(`Error among them: ${traceOf(each, left - 1)}`);
  }
  // A socket's own error says it all in its message; the runtime's, its cause, would only repeat it.
  const cause = isInstance(error, SocketError) ? undefined : propertyOf(error, "cause");
  if (cause !== undefined) lines.push(`Caused by: ${traceOf(cause, left - 1)}`);
  return lines.join("\n");
}

/** Something that was thrown and is no error. */
function detailsOf(thrown: unknown): string {
  if (typeof thrown === "object" && thrown !== null) {
    try {
      const json = JSON.stringify(thrown);
      if (typeof json === "string" && json !== "{}") return json;
    } catch {
      // It has no JSON.
    }
  }
  return describe(thrown);
}

function indented(text: string): string {
  return printableLines(text).split("\n").map((line) => line === "" ? line : `  ${line}`).join("\n");
}

function cut(text: string): string {
  if (text.length <= MAX_REPORT_CHARACTERS) return text;
  return `${text.slice(0, MAX_REPORT_CHARACTERS)}… (${text.length} characters in all)`;
}
