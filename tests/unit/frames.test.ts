/** What servers and workers say to each other: frames arrive as they were sent, however the bytes are cut or the ring is filled. */
import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { SocketError, SystemExit } from "@sockets/server";
import { after, test } from "node:test";
import {
  decodeCredit,
  decodeError,
  decodeReason,
  decodeWithData,
  encodeCredit,
  encodeError,
  encodeWithData,
} from "../../src/relay/frames.ts";
import { makeRing, readRing, RingWriter } from "../../src/relay/ring.ts";
import { encodeFrame, FrameDecoder } from "../../src/relay/stream_frames.ts";
import { generator } from "./generator.ts";

// What waits for shared memory doesn't keep a program running, and not every test runner does.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

type Frame = [channel: number, type: number, payload: number[]];

function randomFrames(random: () => number, count: number, longest: number): Frame[] {
  const below = (n: number) => Math.floor(random() * n);
  return Array.from({ length: count }, () => {
    const length = below(3) === 0 ? 0 : below(longest);
    // Channels are signed: the core's own have negative numbers.
    return [below(2 ** 32) - 2 ** 31, below(200), Array.from({ length }, () => below(256))];
  });
}

test("frames: on a stream that is cut anywhere each arrives once, whole and in order", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = generator(seed);
    const frames = randomFrames(random, 1 + Math.floor(random() * 20), 300);
    const parts = frames.map(([channel, type, payload]) => encodeFrame(channel, type, Uint8Array.from(payload)));
    const all = new Uint8Array(Buffer.concat(parts));
    const received: Frame[] = [];
    const decoder = new FrameDecoder((channel, type, payload) => received.push([channel, type, [...payload]]));
    const most = [1, 5, 13, 500][Math.floor(random() * 4)]!;
    for (let at = 0; at < all.length;) {
      const size = 1 + Math.floor(random() * most);
      // A view into something larger, as the runtimes give them.
      decoder.push(all.subarray(at, at + size));
      at += size;
    }
    assertEquals(received, frames, `seed ${seed}`);
  }
});

test("frames: what a decoder hands out is not changed by what comes next", () => {
  const received: Uint8Array[] = [];
  const decoder = new FrameDecoder((_channel, _type, payload) => received.push(payload));
  const chunk = encodeFrame(1, 3, new TextEncoder().encode("first"));
  decoder.push(chunk);
  chunk.fill(0);
  assertEquals(new TextDecoder().decode(received[0]), "first");
});

test("frames: through a ring that is full again and again, or shorter than they are, each arrives once, whole and in order", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = generator(seed);
    const ring = makeRing(1 << 10);
    const frames = randomFrames(random, 100, seed % 3 === 0 ? 5000 : 400);
    const received: Frame[] = [];
    const all = Promise.withResolvers<void>();
    const reading = readRing(ring, (channel, type, payload) => {
      received.push([channel, type, [...payload]]);
      if (received.length === frames.length) all.resolve();
    });
    const writer = new RingWriter(ring, seed % 2 === 0 ? undefined : (wake) => queueMicrotask(wake));
    for (const [channel, type, payload] of frames) {
      writer.write(channel, type, Uint8Array.from(payload));
      if (random() < 0.1) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await all.promise;
    writer.close();
    await reading;
    assertEquals(received, frames, `seed ${seed}`);
  }
});

test("frames: a reader that falls asleep just as it is woken, or written to, misses nothing", async () => {
  const { waitAsync } = Atomics;
  for (const moment of ["before", "after"]) {
    for (const act of ["wake", "write"]) {
      const ring = makeRing(1 << 10);
      const received: number[] = [];
      const wakes: (() => void)[] = [];
      const writer = new RingWriter(ring, (wake) => wakes.push(wake));
      const wake = () => wakes.splice(0).forEach((wake) => wake());
      // What another thread may do while the reader is between two steps of falling asleep.
      const meanwhile = [act === "wake" ? wake : () => (writer.write(2, 0), wake())];
      Atomics.waitAsync = ((words: Int32Array<SharedArrayBuffer>, index: number, value: number) => {
        if (moment === "before") meanwhile.pop()?.();
        const waited = waitAsync(words, index, value);
        if (moment === "after") meanwhile.pop()?.();
        return waited;
      }) as typeof waitAsync;
      writer.write(1, 0);
      const last = Promise.withResolvers<void>();
      const reading = readRing(ring, (channel) => {
        received.push(channel);
        if (channel === 3) last.resolve();
      });
      Atomics.waitAsync = waitAsync;
      if (act === "wake") writer.write(2, 0);
      wake();
      await new Promise((resolve) => setTimeout(resolve, 0));
      writer.write(3, 0);
      wake();
      const late = setTimeout(() => last.reject(new Error(`${act} ${moment}: the reader sleeps`)), 5000);
      await last.promise;
      clearTimeout(late);
      assertEquals(received, [1, 2, 3], `${act} ${moment}`);
      writer.close();
      await reading;
    }
  }
});

test("frames: data, credit and errors come back as they were", () => {
  const random = generator(5);
  for (let i = 0; i < 300; i++) {
    const data = Uint8Array.from({ length: Math.floor(random() * 100) }, () => Math.floor(random() * 256));
    const value = {
      text: String.fromCodePoint(...Array.from({ length: 8 }, () => Math.floor(random() * 0xd800))),
      truncated: i % 2 === 0,
    };
    const [read, rest] = decodeWithData(encodeWithData(value, data));
    assertEquals(read, value);
    assertEquals([...rest], [...data]);
    const credit = Math.floor(random() * 2 ** 32);
    assertEquals(decodeCredit(encodeCredit(credit)), credit);
  }
  const error = decodeError(encodeError(new SocketError("EPIPE", { syscall: "write" }), "reset"));
  assertInstanceOf(error, SocketError);
  assertEquals(error.code, "EPIPE");
  assertEquals(decodeReason(encodeError(new Error("no"), "idle")), "idle");
  const exit = decodeError(encodeError(new SystemExit(3)));
  assert(exit instanceof SystemExit && exit.exitCode === 3);
  assertEquals(decodeError(encodeError("just text")).message, "a handler threw just text");
});
