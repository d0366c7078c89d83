/** What the writer sends, when, and which promise it gives. */
import { type ByteSink, StreamWriter } from "@sockets/server";
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";

/** Records what is written, as it is at that moment; takes everything at once. */
class Taking implements ByteSink {
  sent: (string | Uint8Array)[] = [];
  write(data: Uint8Array | string): void {
    this.sent.push(typeof data === "string" ? data : data.slice());
  }
  get texts(): string[] {
    return this.sent.map(text);
  }
}

/** Keeps what is written, uncopied as a slow connection does, until the test lets it go. */
class Slow implements ByteSink {
  sent: (string | Uint8Array)[] = [];
  pending: PromiseWithResolvers<void>[] = [];
  write(data: Uint8Array | string): Promise<void> {
    this.sent.push(data);
    this.pending.push(Promise.withResolvers<void>());
    return this.pending.at(-1)!.promise;
  }
  get texts(): string[] {
    return this.sent.map(text);
  }
}

function text(data: Uint8Array | string): string {
  return typeof data === "string" ? data : new TextDecoder().decode(data);
}

const bytes = (text: string) => new TextEncoder().encode(text);

/** Lets every promise that can settle do so. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Whether a promise is settled now. */
async function settled(promise: void | Promise<void>): Promise<boolean> {
  let done = false;
  void Promise.resolve(promise).then(() => done = true, () => done = true);
  await settle();
  return done;
}

test("stream writer: without a buffer every write goes to the sink at once, as it is", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink);
  assertEquals(writer.write("a"), undefined);
  assertEquals(writer.write(bytes("bc")), undefined);
  assertEquals(writer.write(""), undefined);
  assertEquals(sink.sent, ["a", bytes("bc"), ""]);
  assertEquals(writer.flush(), undefined);
  assertEquals(sink.sent.length, 3);
});

test("stream writer: without a buffer the sink's own promise and error are the caller's", () => {
  const slow = new Slow();
  const pending = new StreamWriter(slow).write("a");
  assertStrictEquals(pending, slow.pending[0]!.promise);
  const failing = new StreamWriter({
    write() {
      throw new TypeError("no");
    },
  });
  assertThrows(() => failing.write("a"), TypeError, "no");
});

test("stream writer: a buffer gathers until it is flushed, and an empty one sends nothing", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 16);
  writer.write("a");
  writer.write(bytes("bc"));
  writer.write("é");
  writer.write("");
  assertEquals(sink.sent, []);
  assertEquals(writer.flush(), undefined);
  assertEquals(sink.sent, [bytes("abcé")]);
  assertEquals(writer.flush(), undefined);
  writer.write("");
  writer.flush();
  assertEquals(sink.sent.length, 1);
  writer.write("d");
  writer.flush();
  assertEquals(sink.texts, ["abcé", "d"]);
});

test("stream writer: a buffer is filled to its last byte, and the first write beyond sends it", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 4);
  writer.write("ab");
  writer.write("cd");
  assertEquals(sink.texts, []);
  writer.write("e");
  assertEquals(sink.texts, ["abcd"]);
  writer.write("fg");
  writer.write("hi");
  assertEquals(sink.texts, ["abcd", "efg"]);
  writer.flush();
  assertEquals(sink.texts, ["abcd", "efg", "hi"]);
});

test("stream writer: UTF-8 is counted in bytes", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 4);
  writer.write("éé");
  assertEquals(sink.texts, []);
  writer.write("x");
  assertEquals(sink.texts, ["éé"]);
  writer.write("日本");
  assertEquals(sink.texts, ["éé", "x", "日本"]);
});

test("stream writer: what is larger than the buffer goes after what is gathered, in one piece", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 4);
  writer.write("01234");
  assertEquals(sink.texts, ["01234"]);
  writer.write("a");
  writer.write("bcdefgh");
  assertEquals(sink.texts, ["01234", "a", "bcdefgh"]);
  writer.write("i");
  writer.flush();
  assertEquals(sink.texts, ["01234", "a", "bcdefgh", "i"]);
});

test("stream writer: bytes may be changed after a buffered write", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 8);
  const data = bytes("abc");
  writer.write(data);
  data.fill(0);
  writer.write(data.fill(120));
  data.fill(0);
  // The third makes the writer send the first two before it is copied itself.
  writer.write(data.fill(121));
  data.fill(0);
  writer.flush();
  assertEquals(sink.texts, ["abcxxx", "yyy"]);
});

test("stream writer: a part of a larger array is written, not the array", () => {
  const sink = new Taking();
  const writer = new StreamWriter(sink, 8);
  writer.write(bytes("abcdef").subarray(2, 4));
  writer.flush();
  assertEquals(sink.texts, ["cd"]);
});

test("stream writer: what the sink still has to send is not written over", () => {
  const sink = new Slow();
  const writer = new StreamWriter(sink, 4);
  writer.write("abcd");
  void writer.write("ef");
  writer.write("gh");
  void writer.flush();
  writer.write("ijk");
  void writer.flush();
  writer.write("zzzz");
  assertEquals(sink.texts, ["abcd", "efgh", "ijk"]);
});

test("stream writer: a write is pending as long as the bytes that it pushed out", async () => {
  const sink = new Slow();
  const writer = new StreamWriter(sink, 4);
  assertEquals(writer.write("abc"), undefined);
  const pushed = writer.write("de");
  assert(pushed instanceof Promise);
  assertEquals(await settled(pushed), false);
  sink.pending[0]!.resolve();
  await pushed;
  const flushed = writer.flush();
  assert(flushed instanceof Promise);
  assertEquals(await settled(flushed), false);
  sink.pending[1]!.resolve();
  await flushed;
  assertEquals(sink.texts, ["abc", "de"]);
});

test("stream writer: a large write is pending until what was gathered and itself are taken", async () => {
  for (const order of [[0, 1], [1, 0]] as const) {
    const sink = new Slow();
    const writer = new StreamWriter(sink, 4);
    writer.write("a");
    const pending = writer.write("bcdefgh");
    assertEquals(sink.texts, ["a", "bcdefgh"]);
    sink.pending[order[0]]!.resolve();
    assertEquals(await settled(pending), false);
    sink.pending[order[1]]!.resolve();
    await pending;
  }
});

test("stream writer: a large write is pending when only one of the two is", async () => {
  for (const slowOne of [0, 1]) {
    const gate = Promise.withResolvers<void>();
    const sent: string[] = [];
    const writer = new StreamWriter({
      write(data) {
        sent.push(text(data));
        return sent.length - 1 === slowOne ? gate.promise : undefined;
      },
    }, 4);
    writer.write("a");
    const pending = writer.write("bcdefgh");
    assertEquals(sent, ["a", "bcdefgh"]);
    assertEquals(await settled(pending), false);
    gate.resolve();
    await pending;
  }
});

test("stream writer: a lost connection rejects the write that pushed bytes out, and flush()", async () => {
  for (const failing of [0, 1]) {
    const sink = new Slow();
    const writer = new StreamWriter(sink, 4);
    writer.write("a");
    const pending = writer.write("bcdefgh");
    const outcome = assertRejects(async () => await pending, Error, `lost ${failing}`);
    if (failing === 1) {
      sink.pending[0]!.resolve();
      await settle();
    }
    sink.pending[failing]!.reject(new Error(`lost ${failing}`));
    await outcome;
  }
  const sink = new Slow();
  const writer = new StreamWriter(sink, 4);
  writer.write("a");
  const flushed = writer.flush();
  sink.pending[0]!.reject(new Error("lost"));
  await assertRejects(async () => await flushed, Error, "lost");
});
