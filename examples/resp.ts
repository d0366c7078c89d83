/**
 * A store in memory that speaks the protocol of Redis, RESP2 and RESP3
 * (https://redis.io/docs/latest/develop/reference/protocol-spec/).
 *
 *     deno run --allow-net=127.0.0.1 examples/resp.ts --listen tcp://127.0.0.1:6379
 *     bun examples/resp.ts --listen tcp://127.0.0.1:6379
 *     node examples/resp.ts --listen tcp://127.0.0.1:6379
 *
 * Then talk to it: `redis-cli -p 6379 set color red`, `redis-benchmark -p 6379 -t ping,set,get,incr,lpush -P 16`.
 *
 * It knows PING, ECHO, SET, GET, MGET, DEL, EXISTS, INCR, INCRBY, LPUSH, LPOP, LLEN, DBSIZE, FLUSHALL, INFO, QUIT, and of HELLO, AUTH,
 * SELECT, CLIENT, COMMAND and CONFIG GET as much as the clients ask for when they connect. Keys and values are bytes. A command comes as
 * an array of bulk strings or as a line of words, quoted where they have spaces. Anybody may do everything: there is one user, `default`,
 * and any password is right, as in a Redis that has been given none.
 */
import { parseArgs } from "node:util";
import {
  type Address,
  AsyncTCPServer,
  BaseRequestHandler,
  type Connection,
  formatAddress,
  handleSignals,
  type RequestHandlerClass,
  SocketError,
  type TCPServerOptions,
} from "../mod.ts";

/** The longest line, in bytes: a command that is typed, or what comes before a word. */
export const MAX_LINE = 1024;
/** The most words of a command. */
export const MAX_WORDS = 1024;
/** The most bytes that the words of a command have together. */
export const MAX_COMMAND = 1 << 20;
/** What the store may hold, in bytes; each key and value counts with {@linkcode OVERHEAD} besides its own. */
export const MAX_MEMORY = 256 << 20;
/** About what the runtimes take for an array of bytes and its place in the store. */
const OVERHEAD = 128;
/** Replies beyond so many bytes are sent before more commands are executed. */
const FLUSH_AT = 65_536;
/** Milliseconds that a client has to take the last reply and close. */
const LINGER = 1000;

/** Milliseconds between two warnings of HTTP that came here. */
const WARN_EVERY = 60_000;
/** The Redis whose answers these are: clients look at it. */
const VERSION = "7.0.0";

const [NUL, NEWLINE, RETURN, SPACE, DOLLAR, STAR, MINUS, ZERO] = [0, 10, 13, 32, 36, 42, 45, 48];
const [DOUBLE_QUOTE, SINGLE_QUOTE, BACKSLASH, LOWER_X] = [34, 39, 92, 120];
/** What a backslash and a letter mean within double quotes. */
const ESCAPES: Record<string, number> = { n: 10, r: 13, t: 9, b: 8, a: 7 };
const encoder = new TextEncoder();
const EMPTY = new Uint8Array(0);

/** What a client sent is no RESP; nothing after it can be understood. */
export class ProtocolError extends Error {}

/**
 * Splits what a client sends into commands. It goes on where it stopped when a chunk ends in the middle of one, so that a client
 * that sends byte by byte costs no more than one that doesn't.
 */
export class CommandParser {
  #buffer: Uint8Array = EMPTY;
  #at = 0;
  #end = 0;
  /** The words of the command that is incomplete, how many are to come, and how many bytes the next has, or -1 before its length. */
  #words: Uint8Array[] = [];
  #missing = 0;
  #length = -1;
  #bytes = 0;

  /** Takes a chunk; the commands are parts of it. */
  feed(chunk: Uint8Array): void {
    const rest = this.#end - this.#at;
    if (rest === 0) {
      this.#buffer = chunk;
      this.#at = 0;
      this.#end = chunk.length;
      return;
    }
    if (this.#end + chunk.length > this.#buffer.length) {
      // Twice as much as there is, so that a large word isn't copied for each of its chunks.
      const grown = new Uint8Array(2 * rest + chunk.length);
      grown.set(this.#buffer.subarray(this.#at, this.#end));
      this.#buffer = grown;
      this.#at = 0;
      this.#end = rest;
    }
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /**
   * The words of the next command, or `null` when more must come first. Who keeps one copies it.
   *
   * @throws {ProtocolError} When there is no command.
   */
  next(): Uint8Array[] | null {
    while (this.#missing === 0) {
      const line = this.#line();
      if (line === null) return null;
      if (line[0] !== STAR) {
        const words = splitWords(line);
        // An empty line is no command, as somebody types it to see whether there is an answer.
        if (words.length > 0) return words;
        continue;
      }
      const count = parseLength(line);
      if (count === null || count > MAX_WORDS) throw new ProtocolError("invalid multibulk length");
      // Redis ignores an array without words, and an absent one.
      this.#missing = Math.max(0, count);
      this.#words = [];
      this.#bytes = 0;
    }
    while (this.#missing > 0) {
      if (this.#length === -1 && !this.#startWord()) return null;
      const end = this.#at + this.#length;
      if (end + 2 > this.#end) return null;
      this.#words.push(this.#buffer.subarray(this.#at, end));
      this.#at = end + 2;
      this.#length = -1;
      this.#missing--;
    }
    return this.#words;
  }

  /** Reads how long the next word is; false when more must come first. */
  #startWord(): boolean {
    const line = this.#line();
    if (line === null) return false;
    if (line[0] !== DOLLAR) throw new ProtocolError(`expected '$', got '${line.length === 0 ? " " : text(line.subarray(0, 1))}'`);
    const length = parseLength(line);
    if (length === null || length < 0 || (this.#bytes += length) > MAX_COMMAND) throw new ProtocolError("invalid bulk length");
    this.#length = length;
    return true;
  }

  /** The next line without its end, or `null` when it isn't there yet. */
  #line(): Uint8Array | null {
    const newline = this.#buffer.indexOf(NEWLINE, this.#at);
    // Behind the end there may be room that is not filled yet.
    const end = newline === -1 || newline >= this.#end ? this.#end : newline;
    if (end - this.#at >= MAX_LINE) throw new ProtocolError("too big inline request");
    if (end === this.#end) return null;
    const line = this.#buffer.subarray(this.#at, end > this.#at && this.#buffer[end - 1] === RETURN ? end - 1 : end);
    this.#at = end + 1;
    return line;
  }
}

/**
 * The words of a line that somebody typed. Quotes make one word of several; within double quotes a backslash begins an escape, within
 * single ones it protects a quote alone. A closing quote ends the word.
 */
function splitWords(line: Uint8Array): Uint8Array[] {
  const words: Uint8Array[] = [];
  for (let at = 0;;) {
    while (isBlank(line[at])) at++;
    if (at >= line.length || line[at] === NUL) return words;
    const start = at;
    while (at < line.length && !isEnd(line[at]!) && line[at] !== DOUBLE_QUOTE && line[at] !== SINGLE_QUOTE) at++;
    // Nearly every word has no quotes, and is a part of the line.
    if (at === line.length || isEnd(line[at]!)) {
      words.push(line.subarray(start, at));
      continue;
    }
    const bytes = [...line.subarray(start, at)];
    while (at < line.length && !isEnd(line[at]!)) {
      const byte = line[at]!;
      if (byte === DOUBLE_QUOTE || byte === SINGLE_QUOTE) at = readQuoted(line, at, bytes);
      else {
        bytes.push(byte);
        at++;
      }
    }
    words.push(Uint8Array.from(bytes));
  }
}

/** Reads what is in quotes, which begin at `at`; where it goes on behind them. */
function readQuoted(line: Uint8Array, at: number, bytes: number[]): number {
  const quote = line[at++]!;
  for (; at < line.length && line[at] !== NUL; at++) {
    const byte = line[at]!;
    if (byte === quote) {
      const next = line[at + 1];
      if (next === undefined || next === NUL || isBlank(next)) return at + 1;
      break;
    }
    if (byte !== BACKSLASH || at + 1 === line.length || (quote === SINGLE_QUOTE && line[at + 1] !== quote)) bytes.push(byte);
    else {
      const escaped = line[++at]!;
      const hex = escaped === LOWER_X ? /^[0-9a-f]{2}$/i.exec(text(line.subarray(at + 1, at + 3)))?.[0] : undefined;
      if (hex !== undefined) at += 2;
      bytes.push(hex !== undefined ? parseInt(hex, 16) : ESCAPES[String.fromCharCode(escaped)] ?? escaped);
    }
  }
  throw new ProtocolError("unbalanced quotes in request");
}

/** isspace(3) in the C locale. */
function isBlank(byte: number | undefined): boolean {
  return byte === SPACE || (byte !== undefined && byte >= 9 && byte <= 13);
}

/** What ends a word without quotes. */
function isEnd(byte: number): boolean {
  return byte === SPACE || byte === 9 || byte === NEWLINE || byte === RETURN || byte === NUL;
}

/** The number after the first byte of a line; `null` when there is none. */
function parseLength(line: Uint8Array): number | null {
  const negative = line[1] === MINUS;
  const first = negative ? 2 : 1;
  // What has more digits is too large for everything.
  if (line.length === first || line.length > first + 9) return null;
  let value = 0;
  for (let i = first; i < line.length; i++) {
    const digit = line[i]! - ZERO;
    if (digit < 0 || digit > 9) return null;
    value = value * 10 + digit;
  }
  return negative ? -value : value;
}

/** Bytes as text of as many characters, so that different bytes are different keys. */
function text(bytes: Uint8Array): string {
  let result = "";
  for (let i = 0; i < bytes.length; i++) result += String.fromCharCode(bytes[i]!);
  return result;
}

/** Gathers replies, so that those to a chunk of commands leave in one write. */
export class Replies {
  /** The version of RESP that the client has asked for. */
  protocol: 2 | 3 = 2;
  #buffer = new Uint8Array(1024);
  #used = 0;

  /** How many bytes are gathered. */
  get size(): number {
    return this.#used;
  }

  /** Takes what is gathered, which the next reply overwrites. */
  take(): Uint8Array {
    const taken = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    // A large reply was a rare one, and its room is not kept for every client.
    if (this.#buffer.length > 2 * FLUSH_AT) this.#buffer = new Uint8Array(1024);
    return taken;
  }

  simple(status: string): void {
    this.#append(`+${status}\r\n`);
  }

  /** An error is one line, whatever the client put into it. */
  error(message: string): void {
    this.#append(`-${message.replace(/[\r\n]/g, " ")}\r\n`);
  }

  integer(value: number | bigint): void {
    this.#append(`:${value}\r\n`);
  }

  /** The beginning of an array: its elements come next. */
  array(length: number): void {
    this.#append(`*${length}\r\n`);
  }

  /** The beginning of a map: its keys and values come next, in turns. RESP2 has none, and makes an array of them. */
  map(size: number): void {
    this.#append(this.protocol === 3 ? `%${size}\r\n` : `*${2 * size}\r\n`);
  }

  /** That there is no array. */
  noArray(): void {
    this.#append(this.protocol === 3 ? "_\r\n" : "*-1\r\n");
  }

  bulk(value: Uint8Array | null): void {
    if (value === null) return this.#append(this.protocol === 3 ? "_\r\n" : "$-1\r\n");
    this.#append(`$${value.length}\r\n`);
    this.#bytes(value);
  }

  /** A text that people may read. RESP3 says that it is one. */
  verbatim(words: string): void {
    if (this.protocol === 2) return this.bulk(encoder.encode(words));
    const bytes = encoder.encode(`txt:${words}`);
    this.#append(`=${bytes.length}\r\n`);
    this.#bytes(bytes);
  }

  /** Text of one byte a character. */
  #append(line: string): void {
    this.#room(line.length);
    for (let i = 0; i < line.length; i++) this.#buffer[this.#used++] = line.charCodeAt(i);
  }

  #bytes(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#buffer.set(bytes, this.#used);
    this.#used += bytes.length;
    this.#append("\r\n");
  }

  #room(size: number): void {
    if (this.#used + size <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#used + size, 2 * this.#buffer.length));
    grown.set(this.#buffer.subarray(0, this.#used));
    this.#buffer = grown;
  }
}

const OUT_OF_MEMORY = `OOM command not allowed when used memory > 'maxmemory', which is ${MAX_MEMORY} bytes`;
const NO_INTEGER = "ERR value is not an integer or out of range";
const OVERFLOW = "ERR increment or decrement would overflow";
const SYNTAX = "ERR syntax error";
const BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters.";
const BAD_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD = "ERR AUTH <password> called without any password configured for the default user. " +
  "Are you sure your configuration is correct?";
const WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";

/** What the server knows of a client. */
export interface Session {
  readonly id: number;
  /** What the client calls itself; empty until it says so. */
  name: string;
}

/** What is executed with the words after its name; `args` says how many there may be. */
interface Command {
  readonly args: readonly [least: number, most: number];
  run(store: Store, words: Uint8Array[], replies: Replies, session: Session): void;
}

const COMMANDS: Record<string, Command> = {
  PING: { args: [0, 1], run: (_store, [, word], replies) => word === undefined ? replies.simple("PONG") : replies.bulk(word) },
  ECHO: { args: [1, 1], run: (_store, words, replies) => replies.bulk(words[1]!) },
  QUIT: { args: [0, Infinity], run: (_store, _words, replies) => replies.simple("OK") },
  HELLO: { args: [0, Infinity], run: hello },
  AUTH: {
    args: [1, Infinity],
    run(_store, words, replies) {
      if (words.length > 3) replies.error(SYNTAX);
      else if (words.length === 2) replies.error(NO_PASSWORD);
      else if (text(words[1]!) !== "default") replies.error(BAD_PASSWORD);
      else replies.simple("OK");
    },
  },
  SELECT: {
    args: [1, 1],
    run(_store, words, replies) {
      const index = parseInteger(text(words[1]!));
      if (index === null) replies.error(NO_INTEGER);
      else if (index !== 0) replies.error("ERR DB index is out of range");
      else replies.simple("OK");
    },
  },
  CLIENT: { args: [1, Infinity], run: (_store, words, replies, session) => subcommand(CLIENT, words, replies, session) },
  SET: {
    args: [2, Infinity],
    run(store, words, replies) {
      // Its options are not known here.
      if (words.length > 3) replies.error(SYNTAX);
      else if (store.set(text(words[1]!), words[2]!.slice())) replies.simple("OK");
      else replies.error(OUT_OF_MEMORY);
    },
  },
  MGET: {
    args: [1, Infinity],
    run(store, words, replies) {
      replies.array(words.length - 1);
      for (let i = 1; i < words.length; i++) {
        const value = store.get(text(words[i]!));
        replies.bulk(value instanceof Uint8Array ? value : null);
      }
    },
  },
  GET: {
    args: [1, 1],
    run(store, words, replies) {
      const value = store.get(text(words[1]!));
      if (Array.isArray(value)) replies.error(WRONG_TYPE);
      else replies.bulk(value ?? null);
    },
  },
  DEL: { args: [1, Infinity], run: (store, words, replies) => replies.integer(count(words, (key) => store.delete(key))) },
  EXISTS: {
    args: [1, Infinity],
    run: (store, words, replies) => replies.integer(count(words, (key) => store.get(key) !== undefined)),
  },
  INCR: { args: [1, 1], run: (store, words, replies) => increment(store, text(words[1]!), "1", replies) },
  INCRBY: { args: [2, 2], run: (store, words, replies) => increment(store, text(words[1]!), text(words[2]!), replies) },
  LPUSH: {
    args: [2, Infinity],
    run(store, words, replies) {
      const key = text(words[1]!);
      for (let i = 2; i < words.length; i++) {
        const pushed = store.push(key, words[i]!.slice());
        if (pushed !== null) return replies.error(pushed);
      }
      replies.integer(store.get(key)!.length);
    },
  },
  LPOP: {
    args: [1, 2],
    run(store, words, replies) {
      const key = text(words[1]!);
      const count = words.length === 2 ? 1 : parseInteger(text(words[2]!));
      const value = store.get(key);
      if (count === null || count < 0) replies.error("ERR value is out of range, must be positive");
      else if (value instanceof Uint8Array) replies.error(WRONG_TYPE);
      else if (words.length === 2) replies.bulk(store.pop(key));
      else if (value === undefined) replies.noArray();
      else {
        const size = Math.min(Number(count), value.length);
        replies.array(size);
        for (let i = 0; i < size; i++) replies.bulk(store.pop(key));
      }
    },
  },
  LLEN: {
    args: [1, 1],
    run(store, words, replies) {
      const value = store.get(text(words[1]!));
      if (value instanceof Uint8Array) replies.error(WRONG_TYPE);
      else replies.integer(value?.length ?? 0);
    },
  },
  DBSIZE: { args: [0, 0], run: (store, _words, replies) => replies.integer(store.size) },
  FLUSHALL: {
    args: [0, 1],
    run(store, words, replies) {
      if (words.length === 2 && !/^a?sync$/i.test(text(words[1]!))) return replies.error(SYNTAX);
      store.clear();
      replies.simple("OK");
    },
  },
  INFO: {
    args: [0, Infinity],
    run: (store, _words, replies) =>
      replies.verbatim(
        `# Server\r\nredis_version:${VERSION}\r\nredis_mode:standalone\r\n# Persistence\r\nloading:0\r\n` +
          `# Memory\r\nused_memory:${store.memory}\r\n# Keyspace\r\ndb0:keys=${store.size}\r\n`,
      ),
  },
  COMMAND: {
    args: [0, Infinity],
    run(_store, words, replies, session) {
      if (words.length > 1) subcommand(COMMAND, words, replies, session);
      else replies.array(0);
    },
  },
  CONFIG: { args: [1, Infinity], run: (_store, words, replies, session) => subcommand(CONFIG, words, replies, session) },
};

/** A command of which the next word says more. */
interface Family {
  readonly name: string;
  readonly members: Record<string, { args: readonly [least: number, most: number]; run: SubcommandRun }>;
}

/** Executed with all words. */
type SubcommandRun = (words: Uint8Array[], replies: Replies, session: Session) => void;

const CLIENT: Family = {
  name: "CLIENT",
  members: {
    ID: { args: [0, 0], run: (_words, replies, { id }) => replies.integer(id) },
    GETNAME: { args: [0, 0], run: (_words, replies, { name }) => replies.bulk(name === "" ? null : bytesOf(name)) },
    SETNAME: {
      args: [1, 1],
      run(words, replies, session) {
        if (setName(session, words[2]!)) replies.simple("OK");
        else replies.error(BAD_NAME);
      },
    },
    // What the client is written with, which is of no interest here.
    SETINFO: { args: [2, 2], run: (_words, replies) => replies.simple("OK") },
    INFO: {
      args: [0, 0],
      run: (_words, replies, { id, name }) =>
        replies.verbatim(`id=${id} name=${name} db=0 user=default resp=${replies.protocol}\n`),
    },
  },
};

const COMMAND: Family = {
  name: "COMMAND",
  members: {
    COUNT: { args: [0, 0], run: (_words, replies) => replies.integer(Object.keys(COMMANDS).length) },
    // Clients do without.
    DOCS: { args: [0, Infinity], run: (_words, replies) => replies.map(0) },
    INFO: { args: [0, Infinity], run: (_words, replies) => replies.array(0) },
  },
};

const CONFIG: Family = {
  name: "CONFIG",
  members: {
    // redis-benchmark asks for some that are not known here, and wants an answer.
    GET: {
      args: [1, Infinity],
      run(words, replies) {
        replies.map(words.length - 2);
        for (const word of words.slice(2)) {
          replies.bulk(word);
          replies.bulk(EMPTY);
        }
      },
    },
  },
};

function subcommand({ name, members }: Family, words: Uint8Array[], replies: Replies, session: Session): void {
  const word = text(words[1]!);
  const member = word.toUpperCase();
  if (!Object.hasOwn(members, member)) {
    return replies.error(`ERR unknown subcommand '${word.slice(0, 128)}'. Try ${name} HELP.`);
  }
  const { args: [least, most], run } = members[member]!;
  if (words.length - 2 < least || words.length - 2 > most) {
    return replies.error(`ERR wrong number of arguments for '${name.toLowerCase()}|${member.toLowerCase()}' command`);
  }
  run(words, replies, session);
}

/** Chooses the version of the protocol, and says who is there: the first command of most clients. */
function hello(_store: Store, words: Uint8Array[], replies: Replies, session: Session): void {
  let { protocol } = replies;
  if (words.length > 1) {
    const wanted = parseInteger(text(words[1]!));
    if (wanted === null) return replies.error("ERR Protocol version is not an integer or out of range");
    if (wanted !== 2 && wanted !== 3) return replies.error("NOPROTO unsupported protocol version");
    protocol = wanted;
  }
  let name: Uint8Array | null = null;
  for (let i = 2; i < words.length; i++) {
    const option = text(words[i]!);
    if (/^auth$/i.test(option) && i + 2 < words.length) {
      if (text(words[i + 1]!) !== "default") return replies.error(BAD_PASSWORD);
      i += 2;
    } else if (/^setname$/i.test(option) && i + 1 < words.length) {
      name = words[++i]!;
      if (!isName(name)) return replies.error(BAD_NAME);
    } else return replies.error(`ERR Syntax error in HELLO option '${option}'`);
  }
  if (name !== null) setName(session, name);
  replies.protocol = protocol;
  replies.map(7);
  const answers = { server: "redis", version: VERSION, proto: protocol, id: session.id, mode: "standalone", role: "master" };
  for (const [key, value] of Object.entries(answers)) {
    replies.bulk(bytesOf(key));
    if (typeof value === "number") replies.integer(value);
    else replies.bulk(bytesOf(value));
  }
  replies.bulk(bytesOf("modules"));
  replies.array(0);
}

/** Whether a client may call itself so: visible ASCII, as the names stand in lists. */
function isName(word: Uint8Array): boolean {
  return word.every((byte) => byte > SPACE && byte < 127);
}

function setName(session: Session, word: Uint8Array): boolean {
  if (!isName(word)) return false;
  session.name = text(word);
  return true;
}

/** Text of one byte a character, as {@linkcode text} makes it. */
function bytesOf(words: string): Uint8Array {
  return Uint8Array.from(words, (character) => character.charCodeAt(0));
}

/** A number as Redis reads one, without a sign that needn't be or a zero in front; `null` when it is none of 64 bits. */
function parseInteger(words: string): number | bigint | null {
  if (!/^(0|-?[1-9]\d{0,18})$/.test(words)) return null;
  if (words.length < 16) return Number(words);
  const value = BigInt(words);
  return BigInt.asIntN(64, value) === value ? value : null;
}

/** For how many of the keys something holds. */
function count(words: Uint8Array[], holds: (key: string) => boolean): number {
  let result = 0;
  for (let i = 1; i < words.length; i++) if (holds(text(words[i]!))) result++;
  return result;
}

function increment(store: Store, key: string, by: string, replies: Replies): void {
  const value = store.get(key);
  const growth = parseInteger(by);
  if (growth === null) return replies.error(NO_INTEGER);
  if (Array.isArray(value)) return replies.error(WRONG_TYPE);
  const old = value === undefined ? 0 : parseInteger(text(value));
  if (old === null) return replies.error(NO_INTEGER);
  // Short ones are numbers, which cost less.
  const sum = typeof old === "number" && typeof growth === "number" ? old + growth : BigInt(old) + BigInt(growth);
  if (typeof sum === "bigint" && BigInt.asIntN(64, sum) !== sum) return replies.error(OVERFLOW);
  if (store.set(key, encoder.encode(String(sum)))) replies.integer(sum);
  else replies.error(OUT_OF_MEMORY);
}

/** Values, and lists of values, by their keys; it holds no more than {@linkcode MAX_MEMORY}. */
export class Store {
  #entries = new Map<string, Uint8Array | Uint8Array[]>();
  /** What it holds, in bytes, the overhead included. */
  memory = 0;

  get size(): number {
    return this.#entries.size;
  }

  /** A value, or a list, whose head is the last of the array: there it costs the same however long the list is. */
  get(key: string): Uint8Array | Uint8Array[] | undefined {
    return this.#entries.get(key);
  }

  /** Stores a value; false when there is no room. */
  set(key: string, value: Uint8Array): boolean {
    const old = this.#entries.get(key);
    const grows = (old === undefined ? cost(key) : -cost(old)) + cost(value);
    if (this.memory + grows > MAX_MEMORY) return false;
    this.memory += grows;
    this.#entries.set(key, value);
    return true;
  }

  /** Puts a value at the head of a list; the error when it can't be. */
  push(key: string, value: Uint8Array): string | null {
    const list = this.#entries.get(key);
    if (list instanceof Uint8Array) return WRONG_TYPE;
    const grows = (list === undefined ? cost(key) : 0) + cost(value);
    if (this.memory + grows > MAX_MEMORY) return OUT_OF_MEMORY;
    this.memory += grows;
    if (list === undefined) this.#entries.set(key, [value]);
    else list.push(value);
    return null;
  }

  /** Takes the head of a list; a list that is empty then is gone. */
  pop(key: string): Uint8Array | null {
    const list = this.#entries.get(key);
    if (!Array.isArray(list)) return null;
    const value = list.pop()!;
    this.memory -= cost(value);
    if (list.length === 0) this.delete(key);
    return value;
  }

  /** Whether there was such a key. */
  delete(key: string): boolean {
    const value = this.#entries.get(key);
    if (value === undefined) return false;
    this.memory -= cost(key) + cost(value);
    return this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
    this.memory = 0;
  }
}

function cost(held: string | Uint8Array | Uint8Array[]): number {
  return Array.isArray(held) ? held.reduce((sum, value) => sum + cost(value), 0) : held.length + OVERHEAD;
}

/** One client's conversation. */
export class RESPHandler extends BaseRequestHandler {
  declare readonly server: RESPServer;

  override async handle(): Promise<void> {
    const parser = new CommandParser();
    const replies = new Replies();
    const session = this.server.newSession();
    for await (const chunk of this.request) {
      parser.feed(chunk);
      try {
        for (let words = parser.next(); words !== null; words = parser.next()) {
          const name = this.server.execute(words, replies, session);
          if (name === "QUIT") return this.#close(replies);
          if (name === "POST" || name === "HOST:") return this.#refuse();
          // A few bytes may ask for a megabyte: whoever doesn't read is not answered on.
          if (replies.size >= FLUSH_AT) await this.request.write(replies.take());
        }
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        replies.error(`ERR Protocol error: ${error.message}`);
        return this.#close(replies);
      }
      if (replies.size === 0) continue;
      // No promise, no turn of the event loop: the system has taken the replies.
      const pending = this.request.write(replies.take());
      if (pending !== undefined) await pending;
    }
  }

  /** Cuts off who speaks HTTP: a web page may have had a browser send it, with commands of its author's in it. */
  #refuse(): void {
    this.server.warn(this.clientAddress);
    this.request.abort();
  }

  /**
   * Sends the last replies and their end, then lets the client finish. Closed with input unread, the connection would be reset, and
   * the client could lose them.
   */
  async #close(replies: Replies): Promise<void> {
    await this.request.write(replies.take());
    await this.request.close({ linger: LINGER });
  }
}

/** The server, and the store that its clients share. */
export class RESPServer extends AsyncTCPServer {
  /** Handlers take turns only where they await, so that a command, which doesn't, needs no lock. */
  readonly store: Store = new Store();

  constructor(address: string | Address, Handler: RequestHandlerClass = RESPHandler, options: TCPServerOptions = {}) {
    super(address, Handler, options);
  }

  #sessions = 0;
  #warnedAt = -Infinity;

  /** What is known of a client that has just come. */
  newSession(): Session {
    return { id: ++this.#sessions, name: "" };
  }

  /**
   * Executes a command and appends the reply.
   *
   * @returns Its name when it was one, also `POST` and `HOST:`, which are none and get no reply; else `null`.
   */
  execute(words: Uint8Array[], replies: Replies, session: Session): string | null {
    const given = text(words[0]!);
    const name = given.toUpperCase();
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (command === undefined) {
      if (name === "POST" || name === "HOST:") return name;
      replies.error(`ERR unknown command '${given.slice(0, 128)}', with args beginning with: ${beginning(words)}`);
      return null;
    }
    const [least, most] = command.args;
    if (words.length <= least || words.length - 1 > most) {
      replies.error(`ERR wrong number of arguments for '${name.toLowerCase()}' command`);
      return null;
    }
    command.run(this.store, words, replies, session);
    return name;
  }

  /** Says that somebody spoke HTTP; not each time, or whoever does would fill the log. */
  warn(clientAddress: Address | null): void {
    const now = performance.now();
    if (now - this.#warnedAt < WARN_EVERY) return;
    this.#warnedAt = now;
    const from = clientAddress === null ? "an anonymous client" : formatAddress(clientAddress);
    console.error(
      `Possible SECURITY ATTACK: ${from} speaks HTTP, as a web page can make a browser do; the connection was cut off`,
    );
  }

  /** A client that vanishes is worth a line, not a stack; one that was closed here, at the end, nothing. */
  override handleError(request: Connection | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    if (request === null || !(error instanceof SocketError)) return super.handleError(request, clientAddress, error);
    if (error.code !== "ECONNABORTED") console.error(error.message);
  }
}

/** The first arguments of a command, of which nobody needs to see more. */
function beginning(words: Uint8Array[]): string {
  let result = "";
  for (let i = 1; i < words.length && result.length < 128; i++) result += `'${text(words[i]!).slice(0, 128 - result.length)}' `;
  return result;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { listen: { type: "string", default: "tcp://127.0.0.1:0" } } });
  const server = new RESPServer(values.listen);
  await server.activate();
  console.log(`listening ${formatAddress(server.serverAddress)}`);
  handleSignals(server, { drain: 1000 });
  await server.serveForever();
  await server.serverClose();
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
