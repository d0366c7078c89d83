import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Socket } from "node:net";
import { test } from "node:test";
import {
  CommandParser,
  MAX_COMMAND,
  MAX_LINE,
  MAX_MEMORY,
  MAX_WORDS,
  ProtocolError,
  RESPServer,
  Store,
} from "../../examples/resp.ts";
import { withServer as withAnyServer } from "./with_server.ts";

const encoder = new TextEncoder();

/** Text of one byte a character, so that a test can show bytes. */
const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));

/** A command as a client sends it. */
function command(...words: (string | Uint8Array)[]): string {
  const text = words.map((word) => typeof word === "string" ? latin1(encoder.encode(word)) : latin1(word));
  return `*${words.length}\r\n` + text.map((word) => `$${word.length}\r\n${word}\r\n`).join("");
}

/** The commands that a parser finds in chunks, as text. */
function parse(...chunks: Uint8Array[]): string[][] {
  const parser = new CommandParser();
  const found: string[][] = [];
  for (const chunk of chunks) {
    parser.feed(chunk);
    for (let words = parser.next(); words !== null; words = parser.next()) found.push(words.map(latin1));
  }
  return found;
}

/** A client that gathers the replies. */
class Client {
  readonly socket: Socket;
  #text = "";
  #ended = false;
  #wake: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    const stop = () => {
      this.#ended = true;
      this.#wake();
    };
    socket.setEncoding("latin1");
    socket.on("data", (text) => {
      this.#text += text;
      this.#wake();
    });
    socket.on("end", stop).on("close", stop).on("error", stop);
  }

  /** Waits for exactly this. */
  async expect(replies: string): Promise<void> {
    while (this.#text.length < replies.length && !this.#ended) await this.#more();
    assertEquals(this.#text.slice(0, replies.length), replies);
    this.#text = this.#text.slice(replies.length);
  }

  /** Waits for the end of the stream, with nothing before it. */
  async expectEnd(): Promise<void> {
    while (!this.#ended) await this.#more();
    assertEquals(this.#text, "");
  }

  /** Waits for so many bytes, and drops them. */
  async skip(size: number): Promise<void> {
    for (let left = size; left > 0;) {
      assert(!this.#ended || this.#text.length > 0, `the stream ended ${left} bytes too early`);
      left -= this.#text.length;
      if (left < 0) this.#text = this.#text.slice(left);
      else this.#text = "";
      if (left > 0) await this.#more();
    }
  }

  send(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.write(text, "latin1", (error?: Error | null) => error ? reject(error) : resolve());
    });
  }

  async ask(words: (string | Uint8Array)[], reply: string): Promise<void> {
    await this.send(command(...words));
    await this.expect(reply);
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }
}

/** The answer to HELLO. */
function hello(protocol: 2 | 3, id: number): string {
  const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`;
  return (protocol === 3 ? "%7\r\n" : "*14\r\n") + bulk("server") + bulk("redis") + bulk("version") + bulk("7.0.0") +
    bulk("proto") + `:${protocol}\r\n` + bulk("id") + `:${id}\r\n` + bulk("mode") + bulk("standalone") +
    bulk("role") + bulk("master") + bulk("modules") + "*0\r\n";
}

function withServer(body: (open: () => Promise<Client>, server: RESPServer) => Promise<void>): Promise<void> {
  return withAnyServer(new RESPServer("tcp://127.0.0.1:0"), Client, body);
}

test("resp: the commands", () =>
  withServer(async (open) => {
    const client = await open();
    for (
      const [line, reply] of [
        ["PING", "+PONG\r\n"],
        ["PING hello", "$5\r\nhello\r\n"],
        ["ECHO hello", "$5\r\nhello\r\n"],
        ["GET color", "$-1\r\n"],
        ["SET color red", "+OK\r\n"],
        ["get color", "$3\r\nred\r\n"],
        ["EXISTS color color shape", ":2\r\n"],
        ["INCR visits", ":1\r\n"],
        ["INCR visits", ":2\r\n"],
        ["INCRBY visits -12", ":-10\r\n"],
        ["GET visits", "$3\r\n-10\r\n"],
        ["LPUSH list a", ":1\r\n"],
        ["LPUSH list b c", ":3\r\n"],
        ["LLEN list", ":3\r\n"],
        ["DBSIZE", ":3\r\n"],
        ["LPOP list", "$1\r\nc\r\n"],
        ["LPOP list", "$1\r\nb\r\n"],
        ["LPOP list", "$1\r\na\r\n"],
        ["LPOP list", "$-1\r\n"],
        ["LLEN list", ":0\r\n"],
        ["EXISTS list", ":0\r\n"],
        ["DEL color visits shape", ":2\r\n"],
        ["DBSIZE", ":0\r\n"],
        ["CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"],
        ["COMMAND DOCS", "*0\r\n"],
      ] as const
    ) await client.ask(line.split(" "), reply);
    await client.ask(["SET", "empty", ""], "+OK\r\n");
    await client.ask(["GET", "empty"], "$0\r\n\r\n");
    await client.ask(["FLUSHALL"], "+OK\r\n");
    const info = "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n# Persistence\r\nloading:0\r\n" +
      "# Memory\r\nused_memory:0\r\n# Keyspace\r\ndb0:keys=0\r\n";
    await client.ask(["INFO"], `$${info.length}\r\n${info}\r\n`);
    await client.ask(["HELLO", "3"], hello(3, 1));
    await client.ask(["INFO"], `=${info.length + 4}\r\ntxt:${info}\r\n`);
  }));

test("resp: keys and values are bytes", () =>
  withServer(async (open) => {
    const client = await open();
    const all = new Uint8Array(256).map((_, i) => i);
    await client.ask(["SET", all, all.toReversed()], "+OK\r\n");
    await client.ask(["GET", all], `$256\r\n${latin1(all.toReversed())}\r\n`);
    await client.ask(["SET", "ü", "€"], "+OK\r\n");
    await client.ask(["GET", bytesOf("\xc3\xbc")], "$3\r\n\xe2\x82\xac\r\n");
    await client.ask(["GET", bytesOf("\xfc")], "$-1\r\n");
  }));

test("resp: what can't be done gets an error and the conversation goes on", () =>
  withServer(async (open) => {
    const client = await open();
    const NO_INTEGER = "-ERR value is not an integer or out of range\r\n";
    const WRONG_TYPE = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    await client.ask(["SET", "word", "abc"], "+OK\r\n");
    await client.ask(["SET", "agent", "007"], "+OK\r\n");
    await client.ask(["SET", "large", String(2n ** 63n - 1n)], "+OK\r\n");
    await client.ask(["LPUSH", "list", "a"], ":1\r\n");
    for (
      const [line, reply] of [
        ["FLY", "-ERR unknown command 'FLY', with args beginning with: \r\n"],
        ["fly me to", "-ERR unknown command 'fly', with args beginning with: 'me' 'to' \r\n"],
        ["toString", "-ERR unknown command 'toString', with args beginning with: \r\n"],
        ["fly\r\nme", "-ERR unknown command 'fly  me', with args beginning with: \r\n"],
        ["GET", "-ERR wrong number of arguments for 'get' command\r\n"],
        ["GET a b", "-ERR wrong number of arguments for 'get' command\r\n"],
        ["SET a 1 NX", "-ERR syntax error\r\n"],
        ["INCR word", NO_INTEGER],
        ["INCR agent", NO_INTEGER],
        ["INCRBY count 007", NO_INTEGER],
        ["INCRBY count -0", NO_INTEGER],
        ["INCRBY count +1", NO_INTEGER],
        ["INCR large", "-ERR increment or decrement would overflow\r\n"],
        ["INCRBY large -1", ":9223372036854775806\r\n"],
        ["INCRBY large -9223372036854775808", ":-2\r\n"],
        ["INCRBY large -9223372036854775809", NO_INTEGER],
        ["INCRBY large 1e3", NO_INTEGER],
        ["INCR list", WRONG_TYPE],
        ["GET list", WRONG_TYPE],
        ["LPUSH word a", WRONG_TYPE],
        ["LPOP word", WRONG_TYPE],
        ["LLEN word", WRONG_TYPE],
        ["CONFIG SET save x", "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n"],
        ["CONFIG toString", "-ERR unknown subcommand 'toString'. Try CONFIG HELP.\r\n"],
        ["CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"],
        ["GET word", "$3\r\nabc\r\n"],
      ] as const
    ) await client.ask(line.split(" "), reply);
  }));

test("resp: pipelined commands are answered in order", () =>
  withServer(async (open) => {
    const client = await open();
    await client.send(command("INCR", "n").repeat(1000) + command("GET", "n"));
    await client.expect(Array.from({ length: 1000 }, (_, i) => `:${i + 1}\r\n`).join("") + "$4\r\n1000\r\n");
  }));

test("resp: a command may be a line that somebody types", () =>
  withServer(async (open) => {
    const client = await open();
    await client.send("\r\n  SET   color red \nPING\r\n*0\r\n*-1\r\nget color\r\n");
    await client.expect("+OK\r\n+PONG\r\n$3\r\nred\r\n");
  }));

test("resp: quotes make one word of several, as in redis-cli", () => {
  for (
    const [line, words] of [
      [`SET k "a b"`, ["SET", "k", "a b"]],
      [`SET k 'a b'`, ["SET", "k", "a b"]],
      [`SET "" ''`, ["SET", "", ""]],
      [`ECHO "\\x41\\xfF\\n\\r\\t\\b\\a\\"\\\\\\q\\xg"`, ["ECHO", 'A\xff\n\r\t\b\x07"\\qxg']],
      [`ECHO 'it\\'s \\n'`, ["ECHO", "it's \\n"]],
      [`ECHO a"b c"`, ["ECHO", "ab c"]],
      [`ECHO a'b'"c"`, null],
      ["ECHO\ta\vb\f c", ["ECHO", "a\vb\f", "c"]],
      ["ECHO a\0b", ["ECHO", "a"]],
      [`"`, null],
      [`ECHO "a`, null],
      [`ECHO 'a`, null],
      [`ECHO "a"b`, null],
      [`ECHO 'a'b`, null],
      [`ECHO "a\\`, null],
      [`ECHO "a\\"`, null],
    ] as const
  ) {
    if (words !== null) assertEquals(parse(bytesOf(`${line}\r\n`)), [[...words]], line);
    else assertThrows(() => parse(bytesOf(`${line}\r\n`)), ProtocolError, "unbalanced quotes in request");
  }
});

test("resp: HELLO chooses the protocol for one client, and says who is there", () =>
  withServer(async (open) => {
    const [client, other] = [await open(), await open()];
    await client.ask(["HELLO"], hello(2, 1));
    await client.ask(["GET", "none"], "$-1\r\n");
    await client.ask(["HELLO", "3", "AUTH", "default", "any", "SETNAME", "me"], hello(3, 1));
    await client.ask(["GET", "none"], "_\r\n");
    await client.ask(["MGET", "none"], "*1\r\n_\r\n");
    await client.ask(["LPOP", "none", "2"], "_\r\n");
    await client.ask(["CONFIG", "GET", "save"], "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    await client.ask(["COMMAND", "DOCS"], "%0\r\n");
    await client.ask(["CLIENT", "GETNAME"], "$2\r\nme\r\n");
    await client.ask(["HELLO", "4"], "-NOPROTO unsupported protocol version\r\n");
    await client.ask(
      ["HELLO", "2", "SETNAME", "a b"],
      "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
    );
    await client.ask(["HELLO", "2", "AUTH", "bob", "x"], "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    await client.ask(["GET", "none"], "_\r\n");
    await client.ask(["HELLO", "2"], hello(2, 1));
    await other.ask(["CLIENT", "ID"], ":2\r\n");
    await other.ask(["CLIENT", "GETNAME"], "$-1\r\n");
    await other.ask(["GET", "none"], "$-1\r\n");
  }));

test("resp: HTTP is cut off without an answer, also that of a web page with commands in it, and said once", () =>
  withServer(async (open) => {
    const { error } = console;
    const said: string[] = [];
    console.error = (text: string) => said.push(text);
    try {
      for (
        const request of [
          "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET late 1\r\n",
          "GET / HTTP/1.1\r\nHost: x\r\n\r\nSET late 1\r\n",
          "PING\r\nhost: x\r\nSET late 1\r\n",
          command("post", "x") + command("SET", "late", "1"),
        ]
      ) {
        const client = await open();
        await client.send(request);
        await client.expectEnd();
      }
    } finally {
      console.error = error;
    }
    await (await open()).ask(["GET", "late"], "$-1\r\n");
    assertEquals(said.length, 1);
    assert(said[0]!.startsWith("Possible SECURITY ATTACK: tcp://127.0.0.1:"), said[0]);
  }));

test("resp: commands may be split at every byte", () => {
  const stream = bytesOf(
    command("SET", "k", "a\r\n*1\r\n") + "PING\r\n" + command("GET", "k") + command("ECHO", "") + "*0\r\n\n",
  );
  const expected = [["SET", "k", "a\r\n*1\r\n"], ["PING"], ["GET", "k"], ["ECHO", ""]];
  assertEquals(parse(stream), expected);
  for (let i = 0; i <= stream.length; i++) assertEquals(parse(stream.slice(0, i), stream.slice(i)), expected, `split at ${i}`);
  assertEquals(parse(...Array.from(stream, (byte) => new Uint8Array([byte]))), expected);
});

test("resp: a command may come byte by byte", () =>
  withServer(async (open) => {
    const client = await open();
    for (const byte of command("SET", "k", "ü\r\n") + "GET k\r\n") await client.send(byte);
    await client.expect("+OK\r\n$4\r\n\xc3\xbc\r\n\r\n");
  }));

test("resp: what is no RESP gets an error and the connection is closed", () =>
  withServer(async (open) => {
    for (
      const [input, reason] of [
        ["*x\r\n", "invalid multibulk length"],
        ["*\r\n", "invalid multibulk length"],
        ["*1x\r\n", "invalid multibulk length"],
        [`*${MAX_WORDS + 1}\r\n`, "invalid multibulk length"],
        ["*99999999999999999999\r\n", "invalid multibulk length"],
        ["*1\r\nPING\r\n", "expected '$', got 'P'"],
        ["*1\r\n\r\n", "expected '$', got ' '"],
        ["*1\r\n$-1\r\n", "invalid bulk length"],
        ["*1\r\n$\r\n", "invalid bulk length"],
        ["*1\r\n$1e3\r\n", "invalid bulk length"],
        [`*1\r\n$${MAX_COMMAND + 1}\r\n`, "invalid bulk length"],
        [`*2\r\n$1\r\nx\r\n$${MAX_COMMAND}\r\n`, "invalid bulk length"],
        ["x".repeat(MAX_LINE), "too big inline request"],
        ["x".repeat(1_000_000), "too big inline request"],
      ] as const
    ) {
      const client = await open();
      client.socket.write(command("PING") + input + command("SET", "late", "1"));
      await client.expect(`+PONG\r\n-ERR Protocol error: ${reason}\r\n`);
      await client.expectEnd();
    }
    await (await open()).ask(["GET", "late"], "$-1\r\n");
  }));

test("resp: the longest command is taken", () => {
  const words = Array.from({ length: MAX_WORDS }, () => "w");
  assertEquals(parse(bytesOf(command(...words)))[0]?.length, MAX_WORDS);
  const stream = bytesOf(command("ECHO", "x".repeat(MAX_COMMAND - 4)));
  const chunks = Array.from({ length: Math.ceil(stream.length / 1000) }, (_, i) => stream.slice(i * 1000, (i + 1) * 1000));
  assertEquals(parse(...chunks)[0]?.[1]?.length, MAX_COMMAND - 4);
  assertThrows(() => parse(bytesOf(command("ECHO", "x".repeat(MAX_COMMAND - 3)))), ProtocolError);
});

test("resp: a client that asks for much and reads nothing is not answered on", () =>
  withServer(async (open, server) => {
    const [client, other] = [await open(), await open()];
    const size = 1_000_000;
    await other.ask(["SET", "large", "x".repeat(size)], "+OK\r\n");
    client.socket.pause();
    const asked = 50;
    client.socket.write(command("GET", "large").repeat(asked));
    // What it gets takes turns with the others, and what it doesn't read waits in its own commands.
    await other.ask(["PING"], "+PONG\r\n");
    await other.ask(["GET", "large"], `$${size}\r\n${"x".repeat(size)}\r\n`);
    assert(server.stats.unsent < 10 * size, `${server.stats.unsent} bytes wait to be sent`);
    client.socket.resume();
    await client.skip(asked * (size + `$${size}\r\n\r\n`.length));
  }));

test("resp: QUIT answers and closes", () =>
  withServer(async (open) => {
    const [client, other] = [await open(), await open()];
    await client.send(command("QUIT") + command("SET", "late", "1"));
    await client.expect("+OK\r\n");
    await client.expectEnd();
    await other.ask(["GET", "late"], "$-1\r\n");
  }));

test("resp: a full store takes no more, and what is deleted makes room", () => {
  const store = new Store();
  const value = new Uint8Array(MAX_MEMORY >> 2);
  for (const key of ["a", "b", "c"]) assert(store.set(key, value));
  assert(!store.set("d", value));
  assertEquals(store.get("d"), undefined);
  assert(store.push("d", value) !== null);
  assert(store.set("a", value), "a value takes the place of another");
  assert(store.delete("b"));
  assertEquals(store.push("d", value), null);
  assertEquals(store.pop("d"), value);
  for (const key of ["a", "c"]) assert(store.delete(key));
  assertEquals([store.size, store.memory], [0, 0]);
});
