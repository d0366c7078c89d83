import { assertEquals, assertMatch } from "@std/assert";
import type { Socket } from "node:net";
import { test } from "node:test";
import { KVHandler, KVServer, MAX_KEY, MAX_KEYS, MAX_LINE } from "../../examples/kv.ts";
import { withServer as withAnyServer } from "./with_server.ts";

/** A client that reads line by line. */
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
    socket.setEncoding("utf8");
    socket.on("data", (text) => {
      this.#text += text;
      this.#wake();
    });
    socket.on("end", stop).on("close", stop).on("error", stop);
  }

  /** The next line, or `null` at the end. */
  async line(): Promise<string | null> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end !== -1) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return line;
      }
      if (this.#ended) {
        assertEquals(this.#text, "", "a reply was cut off");
        return null;
      }
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  send(data: string | Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.write(data, (error?: Error | null) => error ? reject(error) : resolve());
    });
  }

  async ask(command: string): Promise<string | null> {
    await this.send(command + "\n");
    return await this.line();
  }
}

function withServer(
  body: (open: () => Promise<Client>, server: KVServer) => Promise<void>,
  Handler: typeof KVHandler = KVHandler,
): Promise<void> {
  return withAnyServer(new KVServer("tcp://127.0.0.1:0", Handler), Client, body);
}

test("kv: the commands", () =>
  withServer(async (open) => {
    const client = await open();
    for (
      const [command, reply] of [
        ["KEYS", "NONE"],
        ["GET color", "NONE"],
        ["SET color dark  red ", "OK"],
        ["GET color", "dark  red "],
        ["SET color bläu\r", "OK"],
        ["get color\r", "bläu"],
        ["INCR visits", "1"],
        ["INCR visits", "2"],
        ["GET visits", "2"],
        ["SET below -1", "OK"],
        ["INCR below", "0"],
        ["KEYS", "color visits below"],
        ["DEL color", "OK"],
        ["DEL color", "NONE"],
        ["KEYS", "visits below"],
        ["SET empty ", "OK"],
        ["GET empty", ""],
      ] as const
    ) assertEquals(await client.ask(command), reply, command);
  }));

test("kv: what is no command gets an error and the conversation goes on", () =>
  withServer(async (open) => {
    const client = await open();
    await client.ask("SET word abc");
    await client.ask(`SET large ${Number.MAX_SAFE_INTEGER}`);
    for (
      const command of [
        "",
        "FLY",
        "SET",
        "SET key",
        "SET  value",
        "GET",
        "GET a b",
        "DEL",
        "INCR",
        "INCR word",
        "INCR large",
        "KEYS all",
        "QUIT now",
        `SET ${"k".repeat(MAX_KEY + 1)} v`,
        `INCR ${"k".repeat(MAX_KEY + 1)}`,
      ]
    ) assertMatch(await client.ask(command) ?? "", /^ERROR /, command);
    assertEquals(await client.ask("KEYS"), "word large");
    assertEquals(await client.ask("GET word"), "abc");
  }));

test("kv: commands in one packet are answered in order", () =>
  withServer(async (open) => {
    const client = await open();
    await client.send("SET a 1\nINCR a\nINCR a\r\nGET a\nGET b\nQUIT\nSET late 1\n");
    const replies: (string | null)[] = [];
    for (let i = 0; i < 7; i++) replies.push(await client.line());
    assertEquals(replies, ["OK", "2", "3", "3", "NONE", "OK", null]);
    assertEquals(await (await open()).ask("GET late"), "NONE");
  }));

test("kv: a command may come byte by byte", () =>
  withServer(async (open) => {
    const client = await open();
    for (const byte of new TextEncoder().encode("SET k ü€\r\nGET k\n")) await client.send(new Uint8Array([byte]));
    assertEquals(await client.line(), "OK");
    assertEquals(await client.line(), "ü€");
  }));

test("kv: clients share the store", () =>
  withServer(async (open) => {
    const [first, second] = [await open(), await open()];
    assertEquals(await first.ask("SET shared yes"), "OK");
    assertEquals(await second.ask("GET shared"), "yes");
    const counted = await Promise.all([first, second].map(async (client) => {
      await client.send("INCR n\n".repeat(100));
      const numbers: number[] = [];
      while (numbers.length < 100) numbers.push(Number(await client.line()));
      return numbers;
    }));
    assertEquals(counted.flat().sort((a, b) => a - b), Array.from({ length: 200 }, (_, i) => i + 1));
    assertEquals(await second.ask("DEL shared"), "OK");
    assertEquals(await first.ask("GET shared"), "NONE");
  }));

test("kv: the longest line is taken, a longer one answered and the connection closed", () =>
  withServer(async (open) => {
    const client = await open();
    const value = "v".repeat(MAX_LINE - "SET k \n".length);
    assertEquals(await client.ask(`SET k ${value}`), "OK");
    assertEquals(await client.ask("GET k"), value);
    assertEquals(await client.ask(`SET k ${value}+`), `ERROR a line may have ${MAX_LINE} bytes`);
    assertEquals(await client.line(), null);
    assertEquals(await (await open()).ask("GET k"), value);
  }));

test("kv: the error reaches a client that has sent far more than a line", () =>
  withServer(async (open) => {
    const client = await open();
    client.socket.write("x".repeat(1_000_000));
    assertEquals(await client.line(), `ERROR a line may have ${MAX_LINE} bytes`);
    assertEquals(await client.line(), null);
  }));

test("kv: QUIT answers and closes", () =>
  withServer(async (open, server) => {
    const [client, other] = [await open(), await open()];
    assertEquals(await other.ask("SET a 1"), "OK");
    const closed = new Promise<void>((resolve) => client.socket.once("close", () => resolve()));
    assertEquals(await client.ask("QUIT"), "OK");
    assertEquals(await client.line(), null);
    await closed;
    assertEquals(await other.ask("GET a"), "1");
    assertEquals(server.stats.accepted, 2);
  }));

test("kv: a full store takes no new key", () =>
  withServer(async (open, server) => {
    const client = await open();
    for (let i = 0; i < MAX_KEYS; i++) server.store.set(`k${i}`, "0");
    assertEquals(await client.ask("SET one more"), `ERROR full: there are ${MAX_KEYS} keys`);
    assertEquals(await client.ask("INCR one"), `ERROR full: there are ${MAX_KEYS} keys`);
    assertEquals(await client.ask("INCR k0"), "1");
    assertEquals(await client.ask("DEL k1"), "OK");
    assertEquals(await client.ask("SET one more"), "OK");
    assertEquals((await client.ask("KEYS"))?.split(" ").length, MAX_KEYS);
  }));

test("kv: an idle client is told and closed", () => {
  class Impatient extends KVHandler {
    override timeout = 20;
  }
  return withServer(async (open) => {
    const client = await open();
    assertEquals(await client.line(), "ERROR idle for 0.02 seconds");
    assertEquals(await client.line(), null);
  }, Impatient);
});
