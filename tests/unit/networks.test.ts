/** Which IP addresses are in which networks, against node:net's BlockList, which nobody here wrote. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { BlockList, isIP } from "node:net";
import { test } from "node:test";
import { networkOf, Networks, parseIp } from "../../src/networks.ts";
import { generator } from "./generator.ts";

const ADDRESSES = [
  "0.0.0.0",
  "127.0.0.1",
  "10.0.0.0",
  "10.255.255.255",
  "11.0.0.0",
  "192.168.1.77",
  "255.255.255.255",
  "::",
  "::1",
  "1::",
  "2001:db8::1",
  "2001:DB8:0:0:0:0:0:2",
  "2001:db8:1:2:3:4:5:6",
  "2001:db8::4:5:6:7:8",
  "fe80::1",
  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
  "64:ff9b::192.0.2.33",
];

test("networks: every kind of address is read as the system reads it, and nothing else is one", () => {
  for (const text of ADDRESSES) assert(parseIp(text) !== null && isIP(text) !== 0, text);
  for (
    const text of [
      "",
      "localhost",
      "1.2.3",
      "1.2.3.4.5",
      "1.2.3.256",
      "01.2.3.4",
      "1.2.3.4 ",
      "1..3.4",
      "-1.2.3.4",
      "0x1.2.3.4",
      ":",
      ":::",
      "::1::",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2:3:4:5:6:7:8",
      "12345::",
      "g::",
      "1:",
      ":1",
      "::1.2.3",
      "1.2.3.4::",
      "::1.2.3.4:5",
    ]
  ) {
    assertEquals(parseIp(text), null, text);
    assertEquals(isIP(text), 0, text);
  }
});

test("networks: one address in many notations is one number", () => {
  for (
    const same of [
      ["2001:db8::1", "2001:DB8:0:0:0:0:0:1", "2001:0db8:0000::0001", "2001:db8::0.0.0.1", "2001:db8::1%eth0"],
      ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "0:0:0:0:0:FFFF:192.0.2.1"],
    ]
  ) {
    for (const text of same) assertEquals(parseIp(text), parseIp(same[0]!), text);
  }
});

test("networks: they hold what node's BlockList holds, for random networks and addresses", () => {
  const random = generator(7);
  const number = (below: number) => Math.floor(random() * below);
  // Few different bits, so that addresses are in networks often enough.
  const ipv4 = () => Array.from({ length: 4 }, () => [0, 1, 127, 128, 255][number(5)]).join(".");
  const ipv6 = () => Array.from({ length: 8 }, () => [0, 1, 0x8000, 0xffff][number(4)]!.toString(16)).join(":");
  let inside = 0;
  for (let round = 0; round < 300; round++) {
    // One for each family, since some look for IPv4 addresses in IPv6 networks and find them.
    const theirs = { ipv4: new BlockList(), ipv6: new BlockList() };
    const networks = Array.from({ length: 1 + number(3) }, () => {
      const [address, bits, family] = random() < 0.5 ? [ipv4(), 32, "ipv4"] as const : [ipv6(), 128, "ipv6"] as const;
      const prefix = number(bits + 1);
      theirs[family].addSubnet(address, prefix, family);
      return `${address}/${prefix}`;
    });
    const ours = new Networks("deny", networks);
    for (let i = 0; i < 20; i++) {
      const [address, family] = random() < 0.5 ? [ipv4(), "ipv4"] as const : [ipv6(), "ipv6"] as const;
      const held = theirs[family].check(address, family);
      assertEquals(ours.has(address), held, `${address} in ${networks}`);
      if (held) inside++;
    }
  }
  assert(inside > 500, `${inside}`);
});

test("networks: a rule for IPv4 holds for mapped addresses, however either is written", () => {
  for (const rule of ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "10.1.2.3/8"]) {
    const networks = new Networks("allow", [rule]);
    for (const address of ["10.9.8.7", "::ffff:10.9.8.7", "::ffff:a09:807"]) {
      assert(networks.has(address), `${address} in ${rule}`);
    }
    for (const address of ["11.0.0.1", "::ffff:11.0.0.1", "::a09:807", "a00::", "nobody"]) {
      assert(!networks.has(address), address);
    }
  }
  assert(new Networks("allow", ["::ffff:0:0/96"]).has("8.8.8.8"));
  assert(!new Networks("allow", ["::/0"]).has("8.8.8.8"));
  assert(!new Networks("allow", ["0.0.0.0/0"]).has("2001:db8::1"));
});

test("networks: what is none is a TypeError that names the list and the text", () => {
  for (
    const bad of ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8", "::/129", "host/8", "", "1.2.3.4/8/8", "1.2.3.4/ 8", 5]
  ) {
    const error = assertThrows(() => new Networks("deny", ["10.0.0.0/8", bad as string]), TypeError, "deny must hold");
    assert(error.message.endsWith(JSON.stringify(bad)), error.message);
  }
  assertThrows(() => new Networks("allow", "10.0.0.0/8" as never), TypeError, "allow must be an array");
});

test("networks: an IPv6 peer is known by its /64, an IPv4 one by its address", () => {
  assertEquals(networkOf("2001:db8:1:2:3:4:5:6"), networkOf("2001:db8:1:2::"));
  assert(networkOf("2001:db8:1:3::") !== networkOf("2001:db8:1:2::"));
  assertEquals(networkOf("192.0.2.1"), "192.0.2.1");
  // Not an IPv4 address, though the numbers are the same.
  assert(networkOf("0:0:c000:201::") !== networkOf("192.0.2.1"));
});
