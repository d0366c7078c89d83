/**
 * A syslog collector: prints what programs and machines report, one line for each message.
 *
 *     deno run --allow-net=127.0.0.1 examples/syslog.ts --listen udp://127.0.0.1:5514
 *     deno run --allow-ffi --allow-read=/tmp --allow-write=/tmp examples/syslog.ts --listen unixgram:/tmp/log.sock --mode 666
 *     bun examples/syslog.ts --listen udp://127.0.0.1:5514
 *     node examples/syslog.ts --listen udp://127.0.0.1:5514
 *
 * Then report something to it: `logger --udp --server 127.0.0.1 --port 5514 --priority mail.warning "disk is full"`, or
 * `logger --socket /tmp/log.sock --socket-errors=on hello`.
 *
 *     mail.warning Nov 24 08:08:18 web1 postfix[4711]: disk is full
 *
 * It reads the messages of RFC 5424 and those of RFC 3164; what is neither is printed as it came. `--mode`, in octal, is the
 * permissions of a Unix socket's file: 600 by default, 666 for a socket that every user's programs may log to.
 */
import { parseArgs } from "node:util";
import {
  BaseRequestHandler,
  type Datagram,
  formatAddress,
  handleSignals,
  parseAddress,
  UDPServer,
  UnixDatagramServer,
} from "../mod.ts";

/** A message; what it doesn't tell is `null`. */
export interface SyslogMessage {
  facility: string;
  severity: string;
  /** As it was sent; that of RFC 3164 has no year and no zone. */
  timestamp: string | null;
  host: string | null;
  app: string | null;
  pid: string | null;
  /** RFC 5424's elements, as they were sent. */
  structuredData: string | null;
  text: string;
}

/** RFC 5424, tables 1 and 2, in the words of syslog.conf(5). */
const FACILITIES = [
  ..."kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock".split(" "),
  ..."local0 local1 local2 local3 local4 local5 local6 local7".split(" "),
];
const SEVERITIES = "emerg alert crit err warning notice info debug".split(" ");

const PRIORITY = /^<(0|[1-9]\d{0,2})>/;
const TIMESTAMP = String.raw`\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-][0-2]\d:[0-5]\d)`;
/** Version, timestamp, host, app, pid, message id; the structured data and the text follow. */
const RFC5424 = new RegExp(String.raw`^1 (-|${TIMESTAMP}) (\S{1,255}) (\S{1,48}) (\S{1,128}) \S{1,32} (?=[-\[])`);
/** An element's name and a parameter's are up to 32 printable characters (RFC 5424, section 6.3). */
const ELEMENT = /\[[^\s="\]]{1,32}/y;
const PARAMETER = / [^\s="\]]{1,32}="/y;
/** The part of a value in front of a character that means something. */
const PLAIN = /[^"\\\]]*/y;
const RFC3164_TIMESTAMP = /^(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?: [1-9]|[12]\d|3[01]) [0-2]\d:[0-5]\d:[0-5]\d /;
/** Host, app, pid, text. What a program sends to the socket of its own machine has no host: its first word ends with a colon. */
const RFC3164 = /^(?:(\S*[^\s:\]]) )?([^\s:[\]]+)(?:\[([^\s[\]]*)\])?: ?([^]*)$/;

/** Reads a message; `null` when it is none. */
export function parseSyslog(message: string): SyslogMessage | null {
  const priority = PRIORITY.exec(message);
  if (priority === null || Number(priority[1]) > 191) return null;
  const facility = FACILITIES[Number(priority[1]) >> 3]!;
  const severity = SEVERITIES[Number(priority[1]) & 7]!;
  const rest = message.slice(priority[0].length);

  if (rest.startsWith("1 ")) {
    const fields = RFC5424.exec(rest);
    if (fields === null) return null;
    const begin = fields[0].length;
    const end = rest[begin] === "-" ? begin + 1 : endOfElements(rest, begin);
    if (end === null || (end < rest.length && rest[end] !== " ")) return null;
    const [timestamp, host, app, pid, structuredData] = [...fields.slice(1), rest.slice(begin, end)]
      .map((field) => field === "-" ? null : field);
    // UTF-8 is announced by a byte order mark, which is no part of the text.
    const text = rest.slice(end + 1).replace(/^\ufeff/, "");
    return {
      facility,
      severity,
      timestamp: timestamp!,
      host: host!,
      app: app!,
      pid: pid!,
      structuredData: structuredData!,
      text,
    };
  }

  const timestamp = RFC3164_TIMESTAMP.exec(rest)?.[0] ?? null;
  // Without a timestamp all of it is the text (RFC 3164, section 4.3.2).
  const fields = timestamp === null ? null : RFC3164.exec(rest.slice(timestamp.length));
  return {
    facility,
    severity,
    timestamp: timestamp?.trimEnd() ?? null,
    host: fields?.[1] ?? null,
    app: fields?.[2] ?? null,
    pid: fields?.[3] ?? null,
    structuredData: null,
    text: fields?.[4] ?? rest.slice(timestamp?.length ?? 0),
  };
}

/**
 * Where the elements that begin at `at` end; `null` when they are none. Step by step: one regular expression for all of it takes Bun
 * a second for a long message.
 */
function endOfElements(text: string, at: number): number | null {
  const skip = (pattern: RegExp) => {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return false;
    at = pattern.lastIndex;
    return true;
  };
  do {
    if (!skip(ELEMENT)) return null;
    while (skip(PARAMETER)) {
      // In a value `"`, `\` and `]` are escaped with a backslash.
      for (skip(PLAIN); text[at] === "\\"; skip(PLAIN)) at += 2;
      if (text[at++] !== '"') return null;
    }
    if (text[at++] !== "]") return null;
  } while (text[at] === "[");
  return at;
}

/** Makes the line that is printed. */
export function formatSyslog(message: string): string {
  // Many senders end a message with a newline or a NUL.
  const trimmed = message.replace(/[\n\0]+$/, "");
  const parsed = parseSyslog(trimmed);
  if (parsed === null) return printable(trimmed);
  const { facility, severity, timestamp, host, app, pid, structuredData, text } = parsed;
  const source = `${app ?? "-"}${pid === null ? "" : `[${pid}]`}`;
  const said = structuredData === null ? text : `${structuredData} ${text}`;
  return printable(`${facility}.${severity} ${timestamp ?? "-"} ${host ?? "-"} ${source}: ${said}`);
}

/** Shows control characters in hexadecimal: what a stranger sends must not forge a line or command the terminal. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (char) => {
    const code = char.charCodeAt(0).toString(16);
    return code.length > 2 ? `\\u${code}` : `\\x${code.padStart(2, "0")}`;
  });
}

const decoder = new TextDecoder();

/** Prints a message. The next is not looked at before it is printed, so that their order is kept and a slow reader slows the sender. */
export class SyslogHandler extends BaseRequestHandler<Datagram> {
  override handle(): Promise<void> {
    const { data, truncated } = this.request;
    const line = `${formatSyslog(decoder.decode(data))}${truncated ? " …" : ""}\n`;
    // A failure is the business of main(), which hears of it too.
    return new Promise((resolve) => process.stdout.write(line, () => resolve()));
  }
}

function makeServer(address: string, mode: number): UDPServer {
  switch (parseAddress(address).transport) {
    case "udp":
      return new UDPServer(address, SyslogHandler);
    case "unixgram":
      return new UnixDatagramServer(address, SyslogHandler, { mode });
    default:
      throw new TypeError(`--listen takes udp://HOST:PORT or unixgram:PATH, got ${address}`);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      listen: { type: "string", multiple: true, default: ["udp://127.0.0.1:0"] },
      mode: { type: "string", default: "600" },
    },
  });
  if (!/^[0-7]{3,4}$/.test(values.mode)) throw new TypeError(`--mode takes octal digits such as 666, got ${values.mode}`);
  const servers = values.listen.map((address) => makeServer(address, parseInt(values.mode, 8)));
  const stop = () => void servers.forEach((server) => server.shutdown());
  let failure: unknown;
  // Whoever read the lines may be gone, as in `syslog.ts | head`.
  process.stdout.on("error", (error) => {
    failure ??= error;
    stop();
  });
  try {
    for (const server of servers) {
      await server.activate();
      console.log(`listening ${formatAddress(server.serverAddress)}`);
    }
    handleSignals(servers, { drain: 1000 });
    await Promise.all(servers.map((server) => server.serveForever()));
  } finally {
    await Promise.all(servers.map((server) => server.serverClose()));
  }
  if (failure !== undefined) throw failure;
}

if (import.meta.main) {
  main().catch((error) => {
    console.error(String(error));
    process.exitCode = 1;
  });
}
