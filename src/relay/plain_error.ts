/** Errors as plain values of bounded size, so that they can be sent to another thread or process. */
import type { Address } from "../address.ts";
import { IncompleteReadError, LimitOverrunError, SocketError, SystemExit, UnsupportedError } from "../errors.ts";
import { describe, isError, isInstance, propertyOf } from "../thrown.ts";

/** What is sent of an error. */
export interface PlainError {
  /** The nearest class that the receiver has too; `"thrown"` for what is no error. */
  kind: Kind;
  name: string;
  message: string;
  stack?: string;
  /** The string and number properties of the runtimes' own errors: `code`, `errno`, `syscall`, `path`. */
  facts?: Record<string, string | number>;
  /** A `SocketError`'s address, as text. */
  address?: string;
  exitCode?: number;
  limit?: number;
  /** An `IncompleteReadError`'s bytes, in Base64. */
  partial?: string;
  cause?: PlainError;
  /** An `AggregateError`'s errors. */
  errors?: PlainError[];
}

/** Characters of one text, and of all texts of one error with its causes; JSON needs six bytes at most for each. */
const MAX_TEXT_CHARS = 8192;
const MAX_ALL_CHARS = 32_768;
/** Bytes of `partial`, of one error with its causes. */
const MAX_PARTIAL_BYTES = 1 << 20;
/** Errors that are sent of one: causes of causes, and the errors of an `AggregateError`. */
const MAX_ERRORS = 16;
const MAX_DEPTH = 8;

/** Most special first. A class that is none of these arrives as the one that it derives from. */
const CLASSES = {
  IncompleteReadError,
  LimitOverrunError,
  SocketError,
  UnsupportedError,
  SystemExit,
  AggregateError,
  TypeError,
  RangeError,
  SyntaxError,
  ReferenceError,
  EvalError,
  URIError,
  DOMException,
} as const;
type Kind = keyof typeof CLASSES | "Error" | "thrown";
const FACTS = ["code", "errno", "syscall", "path"];

/** What is left to spend on one error. */
interface Budget {
  chars: number;
  bytes: number;
  errors: number;
}

/** Makes a plain value of whatever was thrown. Never throws. */
export function toPlainError(thrown: unknown): PlainError {
  return plain(thrown, { chars: MAX_ALL_CHARS, bytes: MAX_PARTIAL_BYTES, errors: MAX_ERRORS }, 0);
}

function plain(thrown: unknown, budget: Budget, depth: number): PlainError {
  budget.errors--;
  if (!isError(thrown) && !isInstance(thrown, DOMException)) {
    return { kind: "thrown", name: "Error", message: cut(describe(thrown), budget) };
  }
  const kind = (Object.keys(CLASSES) as (keyof typeof CLASSES)[]).find((kind) => isInstance(thrown, CLASSES[kind])) ?? "Error";
  const name = textOf(thrown, "name") ?? kind;
  const whole = textOf(thrown, "message") ?? "(its message can't be read)";
  const message = cut(whole, budget);
  const error: PlainError = { kind, name: cut(name, budget), message };
  const stack = propertyOf(thrown, "stack");
  if (typeof stack === "string") error.stack = cutStack(stack, whole, message, budget);
  for (const fact of FACTS) {
    const value = propertyOf(thrown, fact);
    if (typeof value === "number" && Number.isFinite(value)) (error.facts ??= {})[fact] = value;
    else if (typeof value === "string") (error.facts ??= {})[fact] = cut(value, budget);
  }
  if (kind === "SystemExit") error.exitCode = numberOf(thrown, "exitCode", 1);
  if (kind === "LimitOverrunError") error.limit = numberOf(thrown, "limit", 0);
  if (kind === "IncompleteReadError") error.partial = partialOf(thrown, budget);
  const address = isInstance(thrown, SocketError) ? addressOf(thrown) : undefined;
  if (address !== undefined) error.address = cut(address, budget);
  if (depth >= MAX_DEPTH) return error;
  const cause = propertyOf(thrown, "cause");
  if (cause !== undefined && budget.errors > 0) error.cause = plain(cause, budget, depth + 1);
  if (kind === "AggregateError") {
    error.errors = errorsOf(thrown).slice(0, budget.errors).map((each) => plain(each, budget, depth + 1));
  }
  return error;
}

/** A property as text; `undefined` when it can't be read. */
function textOf(thrown: unknown, name: string): string | undefined {
  const value = propertyOf(thrown, name);
  return value === undefined ? undefined : typeof value === "string" ? value : describe(value);
}

function numberOf(thrown: unknown, name: string, otherwise: number): number {
  const value = propertyOf(thrown, name);
  return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
}

function errorsOf(thrown: unknown): unknown[] {
  try {
    return Array.from(propertyOf(thrown, "errors") as Iterable<unknown>);
  } catch {
    return [];
  }
}

function addressOf(thrown: SocketError): string | undefined {
  try {
    return thrown.address === undefined ? undefined : JSON.stringify(thrown.address);
  } catch {
    return undefined;
  }
}

function partialOf(thrown: unknown, budget: Budget): string {
  const partial = propertyOf(thrown, "partial");
  if (!(partial instanceof Uint8Array)) return "";
  const sent = partial.subarray(0, budget.bytes);
  budget.bytes -= sent.length;
  let binary = "";
  for (let at = 0; at < sent.length; at += 4096) binary += String.fromCharCode(...sent.subarray(at, at + 4096));
  return btoa(binary);
}

/** As much of a text as may be sent, and how long it was. */
function cut(text: string, budget: Budget, most = MAX_TEXT_CHARS): string {
  const size = Math.max(0, Math.min(most, budget.chars));
  if (text.length <= size) {
    budget.chars -= text.length;
    return text;
  }
  budget.chars -= size;
  // No half of a surrogate pair.
  const end = size > 0 && (text.charCodeAt(size - 1) & 0xfc00) === 0xd800 ? size - 1 : size;
  return `${text.slice(0, end)}… (cut: ${text.length} characters in all)`;
}

/** A stack begins with the message, which must not crowd out where the error came from. */
function cutStack(stack: string, message: string, cutMessage: string, budget: Budget): string {
  const at = message === "" ? -1 : stack.indexOf(message);
  if (at < 0) return cut(stack, budget);
  const before = cut(stack.slice(0, at), budget);
  budget.chars -= cutMessage.length;
  return before + cutMessage + cut(stack.slice(at + message.length), budget);
}

/** The error again, of the nearest class that both sides have, with the stack that it had there. */
export function fromPlainError(plain: PlainError): Error {
  const { kind, name, message, stack, facts, errors } = plain;
  const error = make(plain);
  for (const fact of Object.keys(facts ?? {})) {
    if (!(fact in error)) (error as unknown as Record<string, unknown>)[fact] = facts![fact];
  }
  const define = (property: string, value: unknown) =>
    Object.defineProperty(error, property, { value, writable: true, configurable: true });
  define("message", kind === "thrown" ? `a handler threw ${message}` : message);
  define("stack", stack ?? `${name}: ${error.message}`);
  if (error.name !== name) define("name", name);
  const cause = plain.cause;
  if (cause !== undefined) define("cause", cause.kind === "thrown" ? cause.message : fromPlainError(cause));
  if (errors !== undefined) define("errors", errors.map((each) => each.kind === "thrown" ? each.message : fromPlainError(each)));
  return error;
}

function make({ kind, name, message, facts = {}, address, exitCode, limit, partial }: PlainError): Error {
  switch (kind) {
    case "IncompleteReadError":
      return new IncompleteReadError(Uint8Array.from(atob(partial!), (char) => char.charCodeAt(0)), "", parseAddress(address));
    case "LimitOverrunError":
      return new LimitOverrunError(limit!, "", parseAddress(address));
    case "SocketError": {
      const { code, syscall } = facts;
      const where = parseAddress(address);
      return new SocketError(
        String(code ?? "EIO"),
        { ...(syscall === undefined ? {} : { syscall: String(syscall) }), ...(where === undefined ? {} : { address: where }) },
        message,
      );
    }
    case "SystemExit":
      return new SystemExit(exitCode);
    case "AggregateError":
      return new AggregateError([]);
    case "DOMException":
      return new DOMException(message, name);
    case "Error":
    case "thrown":
      return new Error(message);
    default:
      return new CLASSES[kind](message);
  }
}

function parseAddress(json: string | undefined): Address | undefined {
  if (json === undefined) return undefined;
  try {
    return JSON.parse(json) as Address;
  } catch {
    // It was cut.
    return undefined;
  }
}
