import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { type Answer, decode, type DecodedPacket, encode, type Packet } from "dns-packet";
import { EXAMPLE, loadZone, RCODE, respond, type ZoneFile } from "../../examples/dns.ts";

const zone = loadZone(EXAMPLE);
const RD = 1 << 8;

function query(packet: Packet): Buffer {
  return encode({ type: "query", id: 4711, ...packet });
}

function edns(size: number, version = 0): Answer {
  return {
    type: "OPT",
    name: ".",
    udpPayloadSize: size,
    extendedRcode: 0,
    ednsVersion: version,
    flags: 0,
    flag_do: false,
    options: [],
  };
}

/** The response to a query, which must be one. */
function ask(data: Uint8Array): DecodedPacket & { code: number; data: Uint8Array } {
  const response = respond(data, zone);
  assert(response !== null);
  const packet = decode(Buffer.from(response));
  assertEquals([packet.id, packet.flag_qr, packet.flag_ra], [Buffer.from(data).readUInt16BE(0), true, false]);
  const extended = packet.additionals!.find((record) => record.type === "OPT")?.extendedRcode ?? 0;
  return { ...packet, code: extended << 4 | packet.flags! & 15, data: response };
}

function askFor(name: string, type: string, more: Packet = {}): ReturnType<typeof ask> {
  return ask(query({ questions: [{ name, type: type as "A" }], ...more }));
}

test("dns: answers, from the records of one name and type", () => {
  const { code, flag_aa, flag_rd, answers, authorities, questions } = askFor("wWw.Example.TEST", "A", { flags: RD });
  assertEquals([code, flag_aa, flag_rd, authorities], [RCODE.NOERROR, true, true, []]);
  assertEquals(questions![0]!.name, "wWw.Example.TEST");
  assertEquals(
    answers!.map((answer) => [answer.name, answer.type, "data" in answer && answer.data, "ttl" in answer && answer.ttl]),
    [["wWw.Example.TEST", "A", "192.0.2.10", 300], ["wWw.Example.TEST", "A", "192.0.2.11", 300]],
  );
  assertEquals(askFor("example.test", "AAAA").answers!.length, 1);
  assertEquals(askFor("example.test", "SOA").answers!.length, 1);
  assertEquals(new Set(askFor("www.example.test", "ANY").answers!.map(({ type }) => type)), new Set(["A"]));
});

test("dns: a name that is not there, and one without such records, have the SOA record beside no answer", () => {
  for (
    const [name, type, code] of [
      ["nobody.example.test", "A", RCODE.NXDOMAIN],
      ["a.www.example.test", "A", RCODE.NXDOMAIN],
      ["\ufffd.example.test", "A", RCODE.NXDOMAIN],
      ["www.example.test", "TXT", RCODE.NOERROR],
      ["www.example.test", "MX", RCODE.NOERROR],
      ["way.down.example.test", "A", RCODE.NOERROR],
      ["long.way.down.example.test", "ANY", RCODE.NOERROR],
    ] as const
  ) {
    const response = askFor(name, type);
    assertEquals([response.code, response.flag_aa, response.answers], [code, true, []], name);
    assertEquals(response.authorities!.map(({ type }) => type), ["SOA"], name);
  }
});

test("dns: a label with a dot inside is not two labels, and comes back as it was", () => {
  const data = query({ questions: [{ name: "way.down.example.test", type: "A" }] });
  data[12] = 8; // 3 "way" 4 "down" becomes 8 "way\4down", and that "way.down".
  data[16] = ".".charCodeAt(0);
  const response = ask(data);
  assertEquals(response.code, RCODE.NXDOMAIN);
  assertEquals(Buffer.compare(response.data.subarray(12, data.length), data.subarray(12)), 0);
});

test("dns: what the zone is not asked", () => {
  for (const name of [".", "test", "example.org", "badexample.test", "example.test.org"]) {
    assertEquals(askFor(name, "A").code, RCODE.REFUSED, name);
  }
  assertEquals(askFor("example.test", "AXFR").code, RCODE.REFUSED);
  const { code, flag_aa } = ask(query({ questions: [{ name: "example.test", type: "A", class: "CH" }] }));
  assertEquals([code, flag_aa], [RCODE.REFUSED, false]);
});

test("dns: what is no query is told so, with its id and nothing else", () => {
  const good = query({ questions: [{ name: "www.example.test", type: "A" }], additionals: [edns(1232)] });
  const headerOnly = good.slice(0, 12);
  const pointer = Buffer.concat([good.subarray(0, 12), Buffer.from([0xc0, 0, 0, 1, 0, 1])]);
  const loop = Buffer.concat([good.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]);
  const noise = Buffer.from(good).fill(0xff, 12);
  const two = query({ questions: [{ name: "example.test", type: "A" }, { name: "example.test", type: "TXT" }] });
  const none = query({});
  const twice = query({ questions: [{ name: "example.test", type: "A" }], additionals: [edns(600), edns(600)] });
  for (const data of [headerOnly, pointer, loop, noise, two, none, twice, good.slice(0, -1), good.slice(0, 20)]) {
    assertEquals([ask(data).code, ask(data).data.length], [RCODE.FORMERR, 12]);
  }
  for (let opcode = 1; opcode < 16; opcode++) {
    const response = ask(query({ flags: opcode << 11, questions: [{ name: "www.example.test", type: "A" }] }));
    assertEquals([response.code, response.flags! >> 11], [RCODE.NOTIMP, opcode]);
  }
});

test("dns: a response, and what has no header, is not answered", () => {
  assertEquals(respond(encode({ type: "response", id: 1, questions: [{ name: "www.example.test", type: "A" }] }), zone), null);
  for (let size = 0; size < 12; size++) assertEquals(respond(new Uint8Array(size), zone), null);
});

test("dns: no noise makes it throw, and every response can be read", () => {
  const good = query({ questions: [{ name: "www.example.test", type: "A" }], additionals: [edns(1232)] });
  let seed = 1;
  const random = (below: number) => (seed = seed * 48_271 % 0x7fffffff) % below;
  for (let i = 0; i < 5000; i++) {
    const data = Buffer.from(good.subarray(0, 12 + random(good.length - 11)));
    for (let changes = random(4); changes >= 0; changes--) data[random(data.length)] = random(256);
    const response = respond(data, zone);
    if (response !== null) decode(Buffer.from(response));
    else assert(data[2]! & 0x80);
  }
});

test("dns: an answer is cut at 512 bytes, or at what the client takes", () => {
  const large = (additionals: Answer[]) => askFor("large.example.test", "TXT", { additionals });
  for (const [additionals, cut] of [[[], true], [[edns(100)], true], [[edns(600)], true], [[edns(1232)], false]] as const) {
    const response = large([...additionals]);
    assertEquals([response.code, response.flag_tc, response.answers!.length], [RCODE.NOERROR, cut, cut ? 0 : 1]);
    assert(response.data.length <= (cut ? 512 : 1232));
    // Who uses EDNS gets EDNS (RFC 6891, section 6.1.1).
    assertEquals(response.additionals!.length, additionals.length);
  }
  const exact = large([edns(65_535)]).data.length;
  assertEquals([large([edns(exact)]).flag_tc, large([edns(exact - 1)]).flag_tc], [false, true]);
});

test("dns: another version of EDNS is told which there is", () => {
  const { code, additionals } = askFor("www.example.test", "A", { additionals: [edns(1232, 1)] });
  assertEquals(code, RCODE.BADVERS);
  assertEquals(additionals!.map((record) => record.type === "OPT" && record.ednsVersion), [0]);
});

test("dns: a zone that is none", () => {
  const files: ZoneFile[] = [
    { origin: "", records: {} },
    { origin: "a..b", records: {} },
    { origin: "a b", records: {} },
    { origin: "x".repeat(64), records: {} },
    { origin: "test", ttl: -1, records: {} },
    { origin: "test", records: { "*": { A: ["192.0.2.1"] } } },
    { origin: "test", records: { a: { A: ["::1"] } } },
    { origin: "test", records: { a: { AAAA: ["192.0.2.1"] } } },
  ];
  for (const file of files) assertThrows(() => loadZone(file), Error);
});
