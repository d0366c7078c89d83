/** What the errors say and hold. */
import {
  type Address,
  IncompleteReadError,
  LimitOverrunError,
  SocketError,
  type SocketErrorOptions,
  SystemExit,
  UnsupportedError,
} from "@sockets/server";
import { assert, assertEquals, assertInstanceOf, assertStrictEquals, assertStringIncludes } from "@std/assert";
import { test } from "node:test";

const tcp: Address = { transport: "tcp", hostname: "::1", port: 80 };
const unix: Address = { transport: "unix", path: "/run/a.sock" };

const MESSAGES: [string, SocketErrorOptions | undefined, string | undefined, string][] = [
  ["EADDRINUSE", undefined, undefined, "EADDRINUSE: address already in use"],
  ["EADDRINUSE", { syscall: "listen", address: tcp }, undefined, "listen EADDRINUSE: address already in use, tcp://[::1]:80"],
  ["ECONNREFUSED", { address: unix }, undefined, "ECONNREFUSED: connection refused, unix:/run/a.sock"],
  [
    "ECONNREFUSED",
    { address: { ...unix, path: "/a\n\x1b[2J" } },
    undefined,
    "ECONNREFUSED: connection refused, unix:/a\\x0a\\x1b[2J",
  ],
  [
    "EPROTO",
    { address: unix },
    "no certificate of \x1b]0;x\x07\r\n\u202e",
    "EPROTO: no certificate of \\x1b]0;x\\x07\\x0d\\x0a\\u202e, unix:/run/a.sock",
  ],
  ["EWHATEVER", { cause: new Error("a\nb") }, undefined, "EWHATEVER: a\\x0ab"],
  ["EPIPE", { syscall: "write" }, undefined, "write EPIPE: broken pipe: the sending side is closed, or the peer is gone"],
  ["EPIPE", { syscall: "write", address: tcp }, "the words", "write EPIPE: the words, tcp://[::1]:80"],
  ["EPIPE", { cause: new Error("the runtime's") }, "the words", "EPIPE: the words"],
  [
    "EPIPE",
    { cause: new Error("the runtime's") },
    undefined,
    "EPIPE: broken pipe: the sending side is closed, or the peer is gone",
  ],
  ["EWHATEVER", { cause: new Error("the runtime's") }, undefined, "EWHATEVER: the runtime's"],
  ["EWHATEVER", { cause: "no error" }, undefined, "EWHATEVER: socket error"],
  ["EWHATEVER", undefined, undefined, "EWHATEVER: socket error"],
];

for (const [code, options, detail, message] of MESSAGES) {
  test(`errors: ${JSON.stringify([code, options, detail])} reads ${JSON.stringify(message)}`, () => {
    const error = new SocketError(code, options, detail);
    assertEquals(error.message, message);
    assertEquals(error.code, code);
  });
}

test("errors: every code that the framework uses has words of its own", () => {
  const CODES = ["EACCES", "EADDRINUSE", "EADDRNOTAVAIL", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EMFILE"];
  CODES.push("EMSGSIZE", "ENFILE", "ENODATA", "ENOTFOUND", "EPIPE", "ETIMEDOUT");
  const messages = CODES.map((code) => new SocketError(code).message);
  for (const message of messages) assert(!message.includes("socket error"), message);
  assertEquals(new Set(messages.map((message) => message.slice(message.indexOf(":")))).size, CODES.length);
});

test("errors: a SocketError holds where it comes from", () => {
  const cause = new Error("the runtime's");
  const error = new SocketError("ECONNRESET", { syscall: "read", address: tcp, cause });
  assertInstanceOf(error, Error);
  assertEquals([error.name, error.code, error.syscall], ["SocketError", "ECONNRESET", "read"]);
  assertStrictEquals(error.address, tcp);
  assertStrictEquals(error.cause, cause);
  assertEquals(String(error), "SocketError: read ECONNRESET: connection reset by peer, tcp://[::1]:80");
  assertStringIncludes(error.stack!, "errors.test");
});

test("errors: what is not known is undefined, and there is no empty cause", () => {
  const error = new SocketError("EPIPE");
  assertEquals([error.syscall, error.address, "cause" in error], [undefined, undefined, false]);
  assertEquals("cause" in new SocketError("EPIPE", { cause: undefined }), false);
  assertStrictEquals(new SocketError("EPIPE", { cause: null }).cause, null);
});

test("errors: IncompleteReadError is a SocketError with what did arrive", () => {
  const partial = new Uint8Array([1, 2, 3]);
  const error = new IncompleteReadError(partial, "5 bytes");
  assertInstanceOf(error, SocketError);
  assertEquals([error.name, error.code, error.syscall], ["IncompleteReadError", "ENODATA", "read"]);
  assertEquals(error.message, "read ENODATA: the stream ended after 3 bytes, before 5 bytes");
  assertStrictEquals(error.partial, partial);
});

test("errors: LimitOverrunError is a SocketError with the limit", () => {
  const error = new LimitOverrunError(64, "line");
  assertInstanceOf(error, SocketError);
  assertEquals([error.name, error.code, error.syscall], ["LimitOverrunError", "EMSGSIZE", "read"]);
  assertEquals(error.message, "read EMSGSIZE: no line within the limit of 64 bytes");
  assertEquals(error.limit, 64);
});

test("errors: UnsupportedError and SystemExit are no SocketErrors", () => {
  const cause = new Error("why");
  const unsupported = new UnsupportedError("not here", { cause });
  assertInstanceOf(unsupported, Error);
  assertEquals(unsupported instanceof SocketError, false);
  assertEquals([unsupported.name, unsupported.message], ["UnsupportedError", "not here"]);
  assertStrictEquals(unsupported.cause, cause);
  const exit = new SystemExit(3);
  assertInstanceOf(exit, Error);
  assertEquals(exit instanceof SocketError, false);
  assertEquals([exit.name, exit.exitCode], ["SystemExit", 3]);
  assertEquals(exit.message, "a handler asked the program to exit with status 3");
  assertEquals(new SystemExit().exitCode, 0);
});
