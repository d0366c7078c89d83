/** What the reader gives of what arrives, however it is cut into chunks. */
import { type ByteSource, IncompleteReadError, LimitOverrunError, StreamReader } from "@sockets/server";
import { assert, assertEquals, assertLess, assertRejects, assertStrictEquals } from "@std/assert";
import { test } from "node:test";
import { generator } from "./generator.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array | null) => data === null ? null : new TextDecoder("utf-8", { ignoreBOM: true }).decode(data);

/** A source of chunks, each an array of its own, that counts how often it is asked. */
class Chunks implements ByteSource {
  asked = 0;
  #chunks: Uint8Array[];
  constructor(...chunks: (string | Uint8Array)[]) {
    this.#chunks = chunks.map((chunk) => typeof chunk === "string" ? bytes(chunk) : chunk);
  }
  read(): Promise<Uint8Array | null> {
    this.asked++;
    return Promise.resolve(this.#chunks.shift() ?? null);
  }
}

const reader = (...chunks: (string | Uint8Array)[]) => new StreamReader(new Chunks(...chunks));
const trickle = (data: string) => reader(...Array.from(bytes(data), (byte) => new Uint8Array([byte])));

/** All that is left, as text. */
async function rest(reader: StreamReader): Promise<string> {
  let all = "";
  for (let chunk = await reader.read(); chunk !== null; chunk = await reader.read()) all += text(chunk);
  return all;
}

async function lines(reader: StreamReader): Promise<string[]> {
  const all: string[] = [];
  for await (const line of reader) all.push(line);
  return all;
}

test("stream reader: nothing is asked of the source before the first call, nor more than is needed", async () => {
  const source = new Chunks("a\nb\nc", "d\n", "e");
  const reader = new StreamReader(source);
  assertEquals(source.asked, 0);
  assertEquals(await reader.readLine(), "a");
  assertEquals(await reader.readLine(), "b");
  assertEquals(text(await reader.readExactly(1)), "c");
  assertEquals(text(await reader.readExactly(0)), "");
  assertEquals(source.asked, 1);
  assertEquals(text(await reader.readUntil("\n")), "d\n");
  assertEquals(source.asked, 2);
});

test("stream reader: read gives what is there, at most max bytes, then null for good", async () => {
  const source = new Chunks("hello", "world");
  const reader = new StreamReader(source);
  assertEquals(text(await reader.read(2)), "he");
  assertEquals(text(await reader.read(100)), "llo");
  assertEquals(source.asked, 1);
  assertEquals(text(await reader.read()), "world");
  assertEquals([await reader.read(), await reader.read(1)], [null, null]);
});

test("stream reader: counts that are none are refused, and nothing is read then", async () => {
  const source = new Chunks("hello");
  const reader = new StreamReader(source);
  for (const max of [0, -1, 1.5, NaN, -Infinity, "1" as unknown as number]) {
    await assertRejects(() => reader.read(max), RangeError, `max must be an integer of 1 or more, got ${max}`);
  }
  for (const size of [-1, 1.5, NaN, Infinity, "1" as unknown as number]) {
    await assertRejects(() => reader.readExactly(size), RangeError, `size must be an integer of 0 or more, got ${size}`);
  }
  await assertRejects(() => reader.readUntil(""), TypeError, "delimiter must not be empty");
  await assertRejects(() => reader.readUntil(new Uint8Array(0)), TypeError, "delimiter must not be empty");
  assertEquals(source.asked, 0);
  assertEquals(await rest(reader), "hello");
});

test("stream reader: readExactly reads within a chunk and across chunks", async () => {
  const input = reader("abc", "d", "efgh");
  assertEquals(text(await input.readExactly(2)), "ab");
  assertEquals(text(await input.readExactly(4)), "cdef");
  assertEquals(text(await input.readExactly(2)), "gh");
  assertEquals(text(await input.readExactly(0)), "");
  const error = await assertRejects(() => input.readExactly(1), IncompleteReadError);
  assertEquals(error.partial.length, 0);
});

test("stream reader: an early end of readExactly hands over what did arrive", async () => {
  const input = reader("abc", "de");
  const error = await assertRejects(() => input.readExactly(9), IncompleteReadError, "after 5 bytes, before 9 bytes");
  assertEquals(error.code, "ENODATA");
  assertEquals(text(error.partial), "abcde");
  assertEquals(await input.read(), null);
});

test("stream reader: a size above the limit is refused before anything is read", async () => {
  const source = new Chunks("abcdef");
  const input = new StreamReader(source);
  const error = await assertRejects(() => input.readExactly(5, { limit: 4 }), LimitOverrunError, "5 bytes");
  assertEquals([error.limit, error.code], [4, "EMSGSIZE"]);
  assertEquals(source.asked, 0);
  input.limit = 3;
  assertEquals((await assertRejects(() => input.readExactly(4), LimitOverrunError)).limit, 3);
  assertEquals(text(await input.readExactly(4, { limit: 4 })), "abcd");
  assertEquals(await rest(input), "ef");
});

test("stream reader: the limit is 65,536 bytes by default", async () => {
  const size = 65_536;
  assertEquals((await reader(new Uint8Array(size)).readExactly(size)).length, size);
  const error = await assertRejects(() => reader(new Uint8Array(size + 1)).readExactly(size + 1), LimitOverrunError);
  assertEquals(error.limit, size);
  assertEquals((await reader("x".repeat(size - 1) + "\n").readLine())!.length, size - 1);
  await assertRejects(() => reader("x".repeat(size) + "\n").readLine(), LimitOverrunError);
});

test("stream reader: readUntil takes the delimiter too, as text or bytes, and leaves what follows", async () => {
  const input = reader("a;b;;c", "é!d");
  assertEquals(text(await input.readUntil(";")), "a;");
  assertEquals(text(await input.readUntil(bytes(";;"))), "b;;");
  assertEquals(text(await input.readUntil("é!")), "cé!");
  assertEquals(await rest(input), "d");
});

test("stream reader: a delimiter is found wherever the chunks cut it", async () => {
  const data = "abc\r\n\r\ndef\r\n\r\n";
  for (let i = 0; i <= data.length; i++) {
    for (let j = i; j <= data.length; j++) {
      const input = reader(...[data.slice(0, i), data.slice(i, j), data.slice(j)].filter((chunk) => chunk !== ""));
      assertEquals(text(await input.readUntil("\r\n\r\n")), "abc\r\n\r\n", `cut at ${i} and ${j}`);
      assertEquals(text(await input.readUntil("\r\n\r\n")), "def\r\n\r\n", `cut at ${i} and ${j}`);
    }
  }
});

test("stream reader: what only begins like the delimiter is passed over", async () => {
  for (const make of [reader, trickle]) {
    assertEquals(text(await make("aaaab|").readUntil("aab")), "aaaab");
    assertEquals(text(await make("\r\r\n\n\r\n\r\n|").readUntil("\r\n\r\n")), "\r\r\n\n\r\n\r\n");
    assertEquals(text(await make("ababac|").readUntil("abac")), "ababac");
  }
});

test("stream reader: bytes behind the end of the buffered data are never taken for data", async () => {
  const input = trickle("xxxxxxxxxxxx;;");
  assertEquals(text(await input.readExactly(10)), "xxxxxxxxxx");
  assertEquals(text(await input.readUntil(";;")), "xx;;");
  // What it has in reserve are zeros, which a delimiter may consist of.
  assertEquals(text(await trickle("abcdefghi\0\0").readUntil("\0\0")), "abcdefghi\0\0");
  assertEquals((await assertRejects(() => trickle("abcde\0").readUntil("\0\0"), IncompleteReadError)).partial.length, 6);
  const spare = new Uint8Array(bytes("ab;;\n\n").buffer, 0, 3);
  const error = await assertRejects(() => reader(spare).readUntil(";;"), IncompleteReadError);
  assertEquals(text(error.partial), "ab;");
  assertEquals(await reader(new Uint8Array(bytes("ab\n").buffer, 0, 2), "c\n").readLine(), "abc");
});

test("stream reader: an early end of readUntil hands over what did arrive", async () => {
  const input = reader("ab", "c\r");
  const error = await assertRejects(() => input.readUntil("\r\n"), IncompleteReadError, "before the delimiter");
  assertEquals(text(error.partial), "abc\r");
  assertEquals(await input.read(), null);
  assertEquals((await assertRejects(() => input.readUntil("\n"), IncompleteReadError)).partial.length, 0);
});

test("stream reader: the limit of readUntil and readLine counts the delimiter", async () => {
  for (const make of [reader, trickle]) {
    assertEquals(text(await make("abc;;").readUntil(";;", { limit: 5 })), "abc;;");
    await assertRejects(() => make("abc;;").readUntil(";;", { limit: 4 }), LimitOverrunError, "delimiter");
    assertEquals(await make("abc\r\n").readLine({ limit: 5 }), "abc");
    await assertRejects(() => make("abc\r\n").readLine({ limit: 4 }), LimitOverrunError, "line");
    assertEquals(await make("abc").readLine({ limit: 4 }), "abc");
    await assertRejects(() => make("abcd").readLine({ limit: 4 }), LimitOverrunError, "line");
  }
});

test("stream reader: the reader's own limit holds where a call names none", async () => {
  const input = reader("abcd\nefgh\n");
  input.limit = 4;
  assertEquals((await assertRejects(() => input.readLine(), LimitOverrunError)).limit, 4);
  assertEquals((await assertRejects(() => input.readUntil("\n"), LimitOverrunError)).limit, 4);
  assertEquals(await input.readLine({ limit: 5 }), "abcd");
  input.limit = 5;
  assertEquals(await input.readLine(), "efgh");
});

test("stream reader: what exceeds a limit stays in the buffer, and nothing more is asked for", async () => {
  const source = new Chunks("abc", "def", "gh\nij\n");
  const input = new StreamReader(source);
  for (let i = 0; i < 3; i++) {
    const error = await assertRejects(() => input.readLine({ limit: 5 }), LimitOverrunError, "no line within the limit of 5");
    assertEquals(error.code, "EMSGSIZE");
    await assertRejects(() => input.readUntil("\n", { limit: 5 }), LimitOverrunError);
    assertEquals(source.asked, 2);
  }
  assertEquals(text(await input.read(1)), "a");
  assertEquals(await input.readLine({ limit: 8 }), "bcdefgh");
  await assertRejects(() => input.readLine({ limit: 2 }), LimitOverrunError);
  assertEquals(await rest(input), "ij\n");
});

test("stream reader: an endless line is given up as soon as the limit is reached", async () => {
  let given = 0;
  const input = new StreamReader({
    read() {
      assertLess(given, 1000);
      given += 100;
      return Promise.resolve(new Uint8Array(100).fill(120));
    },
  });
  await assertRejects(() => input.readLine({ limit: 950 }), LimitOverrunError);
  assertEquals(given, 1000);
  assertEquals((await input.read())!.length, 1000);
});

test("stream reader: lines end with \\n or \\r\\n, and a lone \\r is part of one", async () => {
  const data = "one\r\n\r\n\ntwo\rthree\nfour\r\r\nfive\r\n";
  const expected = ["one", "", "", "two\rthree", "four\r", "five"];
  assertEquals(await lines(reader(data)), expected);
  assertEquals(await lines(trickle(data)), expected);
  for (let i = 1; i < data.length; i++) assertEquals(await lines(reader(data.slice(0, i), data.slice(i))), expected);
});

test("stream reader: an empty line does not take the \\r of what was read before", async () => {
  const input = reader("a\r\nb\n");
  assertEquals(text(await input.readExactly(2)), "a\r");
  assertEquals(await input.readLine(), "");
  assertEquals(await input.readLine(), "b");
});

test("stream reader: text that the end cuts off is the last line; after it there is null", async () => {
  for (const make of [reader, trickle]) {
    const input = make("a\nb\r");
    assertEquals(await input.readLine(), "a");
    assertEquals(await input.readLine(), "b\r");
    assertEquals([await input.readLine(), await input.readLine()], [null, null]);
    assertEquals(await lines(make("a\n")), ["a"]);
    assertEquals(await lines(make("a\n\n")), ["a", ""]);
  }
  assertEquals(await reader().readLine(), null);
});

test("stream reader: a U+FEFF at a line's start is kept", async () => {
  for (const make of [reader, trickle]) {
    assertEquals(await lines(make("\ufeffa\n\ufeff\n\ufeff\ufeffb\r\n\ufeffc")), [
      "\ufeffa",
      "\ufeff",
      "\ufeff\ufeffb",
      "\ufeffc",
    ]);
  }
});

test("stream reader: characters that chunks cut are whole, bytes that are no UTF-8 are U+FFFD", async () => {
  assertEquals(await lines(trickle("é日本🎉\nñ\n")), ["é日本🎉", "ñ"]);
  assertEquals(await reader(new Uint8Array([97, 0xff, 98, 10])).readLine(), "a\ufffdb");
  // A sequence that one line breaks off must not reach into the next.
  assertEquals(await lines(reader(new Uint8Array([0xe2, 0x82, 10, 0xac, 10]))), ["\ufffd", "\ufffd"]);
});

test("stream reader: iteration leaves the rest for other calls, and goes on where they stopped", async () => {
  const input = reader("a\nb\nc", "d\ne\n");
  for await (const line of input) {
    if (line === "b") break;
  }
  assertEquals(text(await input.readExactly(1)), "c");
  assertEquals(await lines(input), ["d", "e"]);
});

test("stream reader: iteration keeps to the limit", async () => {
  const input = reader("ab\nabcdef\n");
  input.limit = 4;
  const seen: string[] = [];
  await assertRejects(async () => {
    for await (const line of input) seen.push(line);
  }, LimitOverrunError);
  assertEquals(seen, ["ab"]);
  assertEquals(await rest(input), "abcdef\n");
});

test("stream reader: bytes that were handed out are never written to again", async () => {
  const data = "0123456789".repeat(20);
  const input = trickle(data);
  const out: [Uint8Array, string][] = [];
  for (let at = 0, size = 1; at + size <= data.length; at += size, size = size % 9 + 1) {
    out.push([await input.readExactly(size), data.slice(at, at + size)]);
  }
  for (const [taken, expected] of out) assertEquals(text(taken), expected);
});

test("stream reader: bytes that were handed out may be changed, what is buffered stays", async () => {
  const input = reader("abc", "def\n");
  (await input.readExactly(4)).fill(0);
  (await input.read(1))!.fill(0);
  assertEquals(await input.readLine(), "f");
});

test("stream reader: an error of the source is the caller's, and what is buffered stays", async () => {
  const lost = new Error("lost");
  const steps: (() => Promise<Uint8Array | null>)[] = [
    () => Promise.resolve(bytes("ab")),
    () => Promise.reject(lost),
    () => Promise.reject(lost),
    () => Promise.reject(lost),
    () => Promise.resolve(bytes("c\n")),
    () => Promise.reject(lost),
  ];
  const input = new StreamReader({ read: () => steps.shift()!() });
  assertStrictEquals(await assertRejects(() => input.readLine(), Error), lost);
  assertStrictEquals(await assertRejects(() => input.readUntil(";"), Error), lost);
  assertStrictEquals(await assertRejects(() => input.readExactly(3), Error), lost);
  assertEquals(await input.readLine(), "abc");
  assertStrictEquals(await assertRejects(() => input.read(), Error), lost);
});

test("stream reader: what trickles in is copied a few times, not all of it for each byte", async () => {
  // Counted, not timed: what Uint8Array.prototype.set copies.
  const size = 20_000;
  const set = Uint8Array.prototype.set;
  let copied = 0;
  const input = trickle("x".repeat(size - 1) + "\n");
  Uint8Array.prototype.set = function (this: Uint8Array, array: ArrayLike<number>, offset?: number) {
    copied += array.length;
    return set.call(this, array, offset);
  };
  try {
    assertEquals((await input.readUntil("\n")).length, size);
  } finally {
    Uint8Array.prototype.set = set;
  }
  assertLess(copied, size * 5);
});

test("stream reader: random calls on random chunkings give what a simple reference gives", async () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = generator(seed);
    const below = (n: number) => Math.floor(random() * n);
    const ALPHABET = "aab\r\n\n;;\ufeffé";
    let data = "";
    for (let n = below(120); n > 0; n--) data += ALPHABET[below(ALPHABET.length)];
    const all = bytes(data);
    const chunks: Uint8Array[] = [];
    const most = [1, 3, 10, 200][below(4)]!;
    for (let at = 0; at < all.length;) {
      const size = 1 + below(most);
      chunks.push(all.slice(at, at + size));
      at += size;
    }
    const input = reader(...chunks);
    const reference = new Reference(all);
    for (let call = 0; call < 40; call++) {
      const limit = below(3) === 0 ? 1 + below(12) : 65_536;
      const kind = below(4);
      let actual: unknown;
      let expected: unknown;
      let name = "";
      if (kind === 0) {
        // How much read() gives depends on the chunks; that it is the next and at most `max` does not.
        const max = 1 + below(8);
        const chunk = await input.read(max);
        name = `read(${max})`;
        expected = reference.read(chunk?.length ?? 0);
        actual = chunk === null ? "end" : [...chunk];
        assert(chunk === null || chunk.length > 0 && chunk.length <= max, `seed ${seed}, call ${call}: ${name}`);
      } else if (kind === 1) {
        const size = below(14);
        name = `readExactly(${size}, ${limit})`;
        actual = await outcome(input.readExactly(size, { limit }));
        expected = reference.readExactly(size, limit);
      } else if (kind === 2) {
        const delimiter = ["\n", "\r\n", ";", ";;", "aa", "ab;", "é"][below(7)]!;
        name = `readUntil(${JSON.stringify(delimiter)}, ${limit})`;
        actual = await outcome(input.readUntil(delimiter, { limit }));
        expected = reference.readUntil(bytes(delimiter), limit);
      } else {
        name = `readLine(${limit})`;
        actual = await outcome(input.readLine({ limit }));
        expected = reference.readLine(limit);
      }
      assertEquals(actual, expected, `seed ${seed}, call ${call}: ${name} gave ${JSON.stringify(actual)}`);
    }
  }
});

test("stream reader: what is no delimiter is refused at once, and nothing is read", async () => {
  let asked = 0;
  const reader = new StreamReader({
    read() {
      asked++;
      return new Promise(() => {});
    },
  });
  const nothing = [new Uint8Array(0), "", 10, null, undefined, ["\n"], new ArrayBuffer(1), new Uint16Array([10]), /\n/, {}];
  for (const delimiter of nothing) {
    await assertRejects(() => reader.readUntil(delimiter as Uint8Array), TypeError, "delimiter must");
  }
  assertEquals(asked, 0);
});

test("stream reader: a source is told of a reader that keeps bytes, and of no other", async () => {
  const attached: object[] = [];
  const chunks = ["one\n", "two\nthr", "ee\n", "half"].map(bytes);
  const source = {
    attachReader: (reader: object) => void attached.push(reader),
    read: () => Promise.resolve(chunks.shift() ?? null),
  };
  const reader = new StreamReader(source);
  assertEquals([await reader.readLine(), attached.length], ["one", 0]);
  assertEquals([await reader.readLine(), attached], ["two", [reader]]);
  assertEquals([await reader.readLine(), attached.length], ["three", 1]);
  await assertRejects(() => reader.readLine({ limit: 2 }), LimitOverrunError);
  assertEquals(attached, [reader, reader]);
});

/** What a call gave, in a form that can be compared. */
async function outcome(call: Promise<Uint8Array | string | null>): Promise<unknown> {
  try {
    const value = await call;
    return value instanceof Uint8Array ? [...value] : value;
  } catch (error) {
    if (error instanceof IncompleteReadError) return { partial: [...error.partial] };
    if (error instanceof LimitOverrunError) return { limit: error.limit };
    throw error;
  }
}

/** The reader as one would write it who has everything at hand from the start. */
class Reference {
  #left: number[];
  constructor(data: Uint8Array) {
    this.#left = [...data];
  }
  read(size: number): unknown {
    return this.#left.length === 0 ? "end" : this.#left.splice(0, size);
  }
  readExactly(size: number, limit: number): unknown {
    if (size > limit) return { limit };
    return this.#left.length < size ? { partial: this.#left.splice(0) } : this.#left.splice(0, size);
  }
  readUntil(delimiter: Uint8Array, limit: number): unknown {
    const at = this.#left.findIndex((_, at) => delimiter.every((byte, i) => this.#left[at + i] === byte));
    if (at !== -1 && at + delimiter.length <= limit) return this.#left.splice(0, at + delimiter.length);
    if (this.#left.length >= limit) return { limit };
    return { partial: this.#left.splice(0) };
  }
  readLine(limit: number): unknown {
    const line = this.readUntil(bytes("\n"), limit);
    if (Array.isArray(line)) return text(new Uint8Array(line))!.replace(/\r?\n$/, "");
    if ("limit" in (line as object)) return line;
    const { partial } = line as { partial: number[] };
    return partial.length === 0 ? null : text(new Uint8Array(partial));
  }
}
