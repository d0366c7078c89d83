/** Who comes in, by a clock that the test moves. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import type { Address } from "../../src/address.ts";
import { Admission, type Visitor } from "../../src/admission.ts";
import type { ConnectionLimits } from "../../src/limits.ts";
import { TimerWheel } from "../../src/timer_wheel.ts";
import { FakeClock } from "./fake_clock.ts";

const OFF = {
  maxConnections: Infinity,
  whenFull: "refuse",
  maxConnectionsPerAddress: Infinity,
  maxConnectionRatePerAddress: Infinity,
  allow: null,
  deny: [],
};

function admission(limits: Partial<ConnectionLimits>) {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  return { clock, wheel, admission: new Admission({ ...OFF, ...limits } as ConnectionLimits, wheel) };
}

const tcp = (hostname: string): Address => ({ transport: "tcp", hostname, port: 1 });
const UNIX: Address = { transport: "unix", path: "" };
const shown = (entered: Visitor | string) => typeof entered === "string" ? entered : "in";

test("admission: without limits everybody is let in, and nobody remembered", () => {
  const { admission: door } = admission({});
  for (const address of [tcp("192.0.2.1"), tcp("::1"), UNIX]) {
    const visitor = door.enter(address, 1_000_000);
    assertEquals(shown(visitor), "in");
    door.leave(visitor as Visitor);
  }
  assertEquals(door.size, 0);
});

test("admission: deny is stronger than allow, and Unix sockets have neither", () => {
  const { admission: door } = admission({ allow: ["10.0.0.0/8", "2001:db8::/32"], deny: ["10.1.0.0/16"] });
  for (
    const [host, outcome] of [
      ["10.0.0.1", "in"],
      ["10.1.0.1", "denied"],
      ["11.0.0.1", "denied"],
      ["2001:db8::1", "in"],
      ["2001:db9::1", "denied"],
      ["somebody", "denied"],
    ] as const
  ) assertEquals(shown(door.enter(tcp(host), 0)), outcome, host);
  assertEquals(shown(door.enter(UNIX, 0)), "in");
  const { admission: open } = admission({ deny: ["0.0.0.0/0"] });
  assertEquals(shown(open.enter(tcp("somebody"), 0)), "in");
});

test("admission: maxConnections refuses, or leaves it to the server to wait", () => {
  const { admission: door } = admission({ maxConnections: 3 });
  assertEquals(shown(door.enter(tcp("192.0.2.1"), 2)), "in");
  assertEquals(shown(door.enter(tcp("192.0.2.1"), 3)), "max connections");
  assertEquals(shown(door.enter(UNIX, 3)), "max connections");
  assertEquals(shown(admission({ maxConnections: 3, whenFull: "wait" }).admission.enter(UNIX, 3)), "in");
});

test("admission: so many from one address, or one /64, until one leaves; others are not concerned", () => {
  const { admission: door } = admission({ maxConnectionsPerAddress: 2 });
  for (const [one, same, other] of [["192.0.2.1", "192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]]) {
    const first = door.enter(tcp(one!), 0) as Visitor;
    assertEquals(shown(door.enter(tcp(same!), 1)), "in");
    assertEquals(shown(door.enter(tcp(one!), 2)), "max connections per address");
    assertEquals(shown(door.enter(tcp(other!), 2)), "in");
    door.leave(first);
    assertEquals(shown(door.enter(tcp(same!), 2)), "in");
    assertEquals(shown(door.enter(tcp(same!), 2)), "max connections per address");
  }
});

test("admission: an address from which nobody is there is forgotten", () => {
  const { admission: door } = admission({ maxConnectionsPerAddress: 2 });
  const visitors = Array.from({ length: 1000 }, (_, i) => door.enter(tcp(`10.0.${i >> 8}.${i & 255}`), 0) as Visitor);
  assertEquals(door.size, 1000);
  for (const visitor of visitors) door.leave(visitor);
  assertEquals(door.size, 0);
});

test("admission: so many in a second from one address, at once or spread, and as many again in the next", () => {
  const { admission: door, clock, wheel } = admission({ maxConnectionRatePerAddress: 5 });
  const come = (host = "192.0.2.1") => {
    const visitor = door.enter(tcp(host), 0);
    if (typeof visitor !== "string") door.leave(visitor);
    return typeof visitor !== "string";
  };
  const many = (count: number) => Array.from({ length: count }, () => come()).filter(Boolean).length;
  assertEquals(many(20), 5);
  assert(come("192.0.2.2"));
  clock.pass(200);
  assertEquals(many(3), 1);
  clock.pass(100);
  assertEquals(many(3), 0);
  clock.pass(100);
  assertEquals(many(3), 1);
  clock.pass(1000);
  assertEquals(many(20), 5);
  let inTenSeconds = 0;
  clock.pass(1000);
  for (let i = 0; i < 1000; i++) {
    clock.pass(10);
    if (come()) inTenSeconds++;
  }
  assert(inTenSeconds >= 50 && inTenSeconds <= 55, `${inTenSeconds}`);
  // A second after the last, nobody's rate matters any more.
  clock.pass(1100);
  assertEquals([door.size, wheel.size], [0, 0]);
});

test("admission: a rate below one is one in so many seconds", () => {
  const { admission: door, clock } = admission({ maxConnectionRatePerAddress: 0.1 });
  const come = () => shown(door.enter(tcp("192.0.2.1"), 0));
  assertEquals([come(), come()], ["in", "connection rate"]);
  clock.pass(9000);
  assertEquals(come(), "connection rate");
  clock.pass(1000);
  assertEquals([come(), come()], ["in", "connection rate"]);
});

test("admission: one that leaves is forgotten only when its rate is paid off", () => {
  const { admission: door, clock } = admission({ maxConnectionRatePerAddress: 0.1 });
  door.leave(door.enter(tcp("192.0.2.1"), 0) as Visitor);
  clock.pass(5000);
  assertEquals([door.size, shown(door.enter(tcp("192.0.2.1"), 0))], [1, "connection rate"]);
  clock.pass(11_000);
  assertEquals([door.size, shown(door.enter(tcp("192.0.2.1"), 0))], [0, "in"]);
  clock.pass(60_000);
  assertEquals(door.size, 1, "one that is there is not forgotten");
});
