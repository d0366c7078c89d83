/**
 * An authoritative DNS server for one small zone, over UDP.
 *
 *     deno run --allow-net=127.0.0.1 --allow-read=zone.json examples/dns.ts --listen udp://127.0.0.1:5353 --zone zone.json
 *     bun examples/dns.ts --listen udp://127.0.0.1:5353
 *     node examples/dns.ts --listen udp://127.0.0.1:5353
 *
 * Then ask it: `dig @127.0.0.1 -p 5353 www.example.test A`. A zone is JSON; without one it serves the zone `EXAMPLE` below.
 *
 *     { "origin": "example.test", "ttl": 300, "records": { "@": { "TXT": ["hello"] }, "www": { "A": ["192.0.2.10"] } } }
 *
 * An answer that is too long for the client is cut and marked so (TC), for the client to ask again over TCP; that part is left out.
 * The packets are read and written by `dns-packet`.
 */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  CHECKING_DISABLED,
  decode,
  encode,
  type OptAnswer,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from "dns-packet";
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { isIPv4, isIPv6 } from "node:net";
import { parseArgs } from "node:util";
import {
  type Address,
  AsyncUDPServer,
  BaseRequestHandler,
  type Datagram,
  formatAddress,
  handleSignals,
  type RequestHandlerClass,
  SocketError,
  type UDPServerOptions,
} from "../mod.ts";

/** A zone as people write it. */
export interface ZoneFile {
  /** The name of the zone, such as `example.test`. */
  origin: string;
  /** Seconds that an answer may be cached: 300 by default. */
  ttl?: number;
  /** Records by name, relative to the origin; `@` is the origin itself. */
  records: Record<string, { A?: string[]; AAAA?: string[]; TXT?: string[] }>;
}

/** A zone as it is served. */
export interface Zone {
  origin: string;
  soa: Answer;
  /** Every name in the zone in lower case, also those that only others are below of, with its records. */
  names: Map<string, Answer[]>;
}

/** What is served when no zone is given. */
export const EXAMPLE: ZoneFile = {
  origin: "example.test",
  records: {
    "@": { A: ["192.0.2.1"], AAAA: ["2001:db8::1"], TXT: ["v=spf1 -all"] },
    www: { A: ["192.0.2.10", "192.0.2.11"], AAAA: ["2001:db8::10"] },
    "a.long.way.down": { TXT: ["hello"] },
    large: { TXT: ["0123456789".repeat(70)] },
  },
};

/** RFC 1035, section 4.1.1, and RFC 6891, section 9. */
export const RCODE = { NOERROR: 0, FORMERR: 1, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 };
/** The size of the header; what is shorter says not even which query it would be. */
const HEADER = 12;
/** The longest answer to a client that says nothing (RFC 1035, section 4.2.1), and to one that says more than fits in a packet. */
const MIN_SIZE = 512;
const MAX_SIZE = 1232;
/** The types that ask for the whole zone, and for any record (RFC 1035, section 3.2.3; RFC 1995). */
const IXFR = 251;
const AXFR = 252;
const ANY = 255;
const IN = 1;

/** Checks a zone and makes it ready to be served. */
export function loadZone({ origin: name, ttl = 300, records }: ZoneFile): Zone {
  const origin = lower(name).replace(/\.$/, "");
  checkName(origin);
  if (!Number.isInteger(ttl) || ttl < 0 || ttl > 0x7fffffff) throw new RangeError(`ttl must be a number of seconds, got ${ttl}`);
  const soa: Answer = {
    type: "SOA",
    name: origin,
    ttl,
    data: {
      mname: `ns.${origin}`,
      rname: `hostmaster.${origin}`,
      serial: 1,
      refresh: 3600,
      retry: 600,
      expire: 86_400,
      minimum: ttl,
    },
  };
  const names = new Map<string, Answer[]>([[origin, [soa, { type: "NS", name: origin, ttl, data: `ns.${origin}` }]]]);
  for (const [relative, { A = [], AAAA = [], TXT = [] }] of Object.entries(records)) {
    const name = relative === "@" ? origin : `${lower(relative)}.${origin}`;
    checkName(name);
    const bad = A.find((address) => !isIPv4(address)) ?? AAAA.find((address) => !isIPv6(address));
    if (bad !== undefined) throw new TypeError(`${name} has an address that is none: ${bad}`);
    const answers = [
      ...A.map((data): Answer => ({ type: "A", name, ttl, data })),
      ...AAAA.map((data): Answer => ({ type: "AAAA", name, ttl, data })),
      ...TXT.map((text): Answer => ({ type: "TXT", name, ttl, data: strings(text) })),
    ];
    names.set(name, [...names.get(name) ?? [], ...answers]);
    // A name above another exists, although it may have no records (RFC 8020).
    for (let above = name; above !== origin;) {
      above = above.slice(above.indexOf(".") + 1);
      if (!names.has(above)) names.set(above, []);
    }
  }
  return { origin, soa, names };
}

/**
 * Answers a query; `null` for what must not be answered: a response, or two servers would talk for ever, and what is no packet.
 */
export function respond(data: Uint8Array, zone: Zone): Uint8Array | null {
  const query = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (query.length < HEADER || query[2]! & 0x80) return null;
  const id = query.readUInt16BE(0);
  const opcode = query.readUInt16BE(2) & 0x7800;
  const echoed = query.readUInt16BE(2) & (RECURSION_DESIRED | CHECKING_DISABLED);
  const refuse = (rcode: number) => encode({ type: "response", id, flags: opcode | echoed | rcode });

  if (opcode !== 0) return refuse(RCODE.NOTIMP);
  let opts: OptAnswer[];
  let name: string;
  try {
    const { questions = [], additionals = [] } = decode(query);
    // RFC 9619: a query has one question. RFC 6891, section 6.1.1: it has one OPT record at most.
    opts = additionals.filter((record) => record.type === "OPT");
    if (questions.length !== 1 || opts.length > 1) return refuse(RCODE.FORMERR);
    name = questions[0]!.name;
  } catch {
    return refuse(RCODE.FORMERR);
  }
  const end = endOfQuestion(query);
  if (end === null) return refuse(RCODE.FORMERR);

  const found = opts[0] !== undefined && opts[0].ednsVersion !== 0
    ? { rcode: RCODE.BADVERS }
    : lookUp(zone, query.subarray(HEADER, end), name);
  const { rcode, answers = [], authorities = [] } = found;
  const additionals: Answer[] = opts.length === 0 ? [] : [{
    type: "OPT",
    name: ".",
    udpPayloadSize: MAX_SIZE,
    extendedRcode: rcode >> 4,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: [],
  }];
  const aa = rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN ? AUTHORITATIVE_ANSWER : 0;
  const flags = echoed | aa | (rcode & 15);
  // The question is sent back byte for byte: clients compare it, capitals included, to tell an answer from a forged one. There is
  // nothing in a packet that counts from its beginning, since dns-packet compresses no names, so it can be put in behind the header.
  const withQuestion = (packet: Buffer) => {
    packet.writeUInt16BE(1, 4);
    return Buffer.concat([packet.subarray(0, HEADER), query.subarray(HEADER, end), packet.subarray(HEADER)]);
  };
  const response = withQuestion(encode({ type: "response", id, flags, answers, authorities, additionals }));
  if (response.length <= Math.min(Math.max(opts[0]?.udpPayloadSize ?? 0, MIN_SIZE), MAX_SIZE)) return response;
  return withQuestion(encode({ type: "response", id, flags: flags | TRUNCATED_RESPONSE, additionals }));
}

/** What the zone says to a question, given in bytes and with its name as text. */
function lookUp(
  zone: Zone,
  question: Buffer,
  asked: string,
): { rcode: number; answers?: Answer[]; authorities?: Answer[] } {
  const type = question.readUInt16BE(question.length - 4);
  const name = lower(asked);
  const isWithin = name === zone.origin || name.endsWith(`.${zone.origin}`);
  if (!isWithin || question.readUInt16BE(question.length - 2) !== IN || type === AXFR || type === IXFR) {
    return { rcode: RCODE.REFUSED };
  }
  // As text, a label that has a dot or no UTF-8 inside looks like another name; none of this zone's has.
  const reread = encode({ questions: [{ name: asked, type: "A" }] });
  const isExact = reread.subarray(HEADER, -4).equals(question.subarray(0, -4));
  const records = isExact ? zone.names.get(name) : undefined;
  if (records === undefined) return { rcode: RCODE.NXDOMAIN, authorities: [zone.soa] };
  // To ANY, one type's records are enough (RFC 8482).
  const wanted = type === ANY ? records[0]?.type : TYPES[type];
  const answers = records.filter((record) => record.type === wanted).map((record) => ({ ...record, name: asked }));
  return answers.length > 0 ? { rcode: RCODE.NOERROR, answers } : { rcode: RCODE.NOERROR, authorities: [zone.soa] };
}

/** The types that a zone can have. */
const TYPES: Record<number, string> = { 1: "A", 2: "NS", 6: "SOA", 16: "TXT", 28: "AAAA" };

/** Where the one question ends; `null` when its name has a pointer, though there is nothing before it to point to. */
function endOfQuestion(query: Buffer): number | null {
  let at = HEADER;
  for (; query[at] !== 0; at += 1 + query[at]!) {
    if (!(query[at]! <= 63)) return null;
  }
  return at + 5;
}

/** Only ASCII's capitals are equal to small letters (RFC 4343). */
function lower(name: string): string {
  return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

function checkName(name: string): void {
  if (name.length > 253 || !/^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/.test(name)) {
    throw new TypeError(`not the name of a host: ${JSON.stringify(name)}`);
  }
}

/** A text as the strings of a TXT record, each of which holds 255 bytes. */
function strings(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  const parts = [bytes.subarray(0, 255)];
  for (let at = 255; at < bytes.length; at += 255) parts.push(bytes.subarray(at, at + 255));
  return parts;
}

export class DNSHandler extends BaseRequestHandler<Datagram> {
  declare readonly server: DNSServer;

  override handle(): void | Promise<void> {
    const response = respond(this.request.data, this.server.zone);
    if (response !== null) return this.request.reply(response);
  }
}

export class DNSServer extends AsyncUDPServer {
  readonly zone: Zone;

  constructor(
    address: string | Address,
    zone: Zone,
    Handler: RequestHandlerClass<Datagram> = DNSHandler,
    options: UDPServerOptions = {},
  ) {
    super(address, Handler, options);
    this.zone = zone;
  }

  /** An answer that can't be sent is worth a line, not a stack: the client asks again. */
  override handleError(request: Datagram | null, clientAddress: Address | null, error: unknown): void | Promise<void> {
    if (request === null || !(error instanceof SocketError)) return super.handleError(request, clientAddress, error);
    // Forged to come from port 0: whoever sends such is not to fill the log.
    if (error.code !== "EDESTADDRREQ") console.error(error.message);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { listen: { type: "string", default: "udp://127.0.0.1:0" }, zone: { type: "string" } },
  });
  const zone = loadZone(values.zone === undefined ? EXAMPLE : JSON.parse(readFileSync(values.zone, "utf8")));
  const server = new DNSServer(values.listen, zone);
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
