import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { SocketError } from "@sockets/server";
import { isShortage, ShortageLog } from "../../src/shortage_log.ts";

test("a shortage is told by its code, also when it is the cause of another error", () => {
  const out = new SocketError("EMFILE", { syscall: "spawn" });
  assertEquals(isShortage(out), true);
  assertEquals(isShortage(new Error("gone", { cause: new Error("more", { cause: out }) })), true);
  assertEquals(isShortage(new SocketError("EAGAIN", { syscall: "spawn" })), true);
  assertEquals(isShortage(new Error("could not load file:///x.ts: EMFILE reading x.ts")), true);
});

test("what a program or a peer says of files is no shortage", () => {
  assertEquals(isShortage(new Error("EMFILE: too many open files")), false);
  assertEquals(isShortage(new SocketError("EAGAIN", { syscall: "send" })), false);
  assertEquals(isShortage(new SocketError("ECONNRESET")), false);
  assertEquals(isShortage("EMFILE"), false);
  const circular = new Error("circular");
  circular.cause = circular;
  assertEquals(isShortage(circular), false);
});

test("one error a minute is shown, with the number of those that were not", () => {
  const log = new ShortageLog();
  assertEquals(log.next(0), 0);
  for (let ms = 1; ms <= 1000; ms++) assertEquals(log.next(ms), null);
  assertEquals([log.next(60_000), log.next(130_000)], [1000, 0]);
});
