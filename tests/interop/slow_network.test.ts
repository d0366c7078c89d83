/** A network that takes less than is sent: the loopback of a network namespace, slowed down by `tc`. */
import { assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { commandFor } from "../conformance/children.ts";
import { run, runtimeName } from "./programs.ts";

// A datagram of 1000 bytes takes 4 ms, and beyond the send buffer of 208 KiB the kernel has no room: for about half of 300.
const SLOW = "ip link set lo up && tc qdisc add dev lo root tbf rate 2mbit burst 5k limit 10mb";
const name = `${runtimeName} slow network: replies that the kernel has no room for leave before the server's socket is closed`;

if (spawnSync("unshare", ["-n", "sh", "-c", SLOW]).status === 0) {
  test(name, async () => {
    const program = commandFor(new URL("sends_and_closes.ts", import.meta.url));
    const { status, stdout, stderr } = await run("unshare", ["-n", "sh", "-c", `${SLOW} && exec "$@"`, "sh", ...program]);
    assertEquals([status, stdout, stderr], [0, "300 of 300, errors 0\n", ""]);
  });
} else {
  test(`${name} [skipped: it takes root, unshare, ip and tc, for a slow network of its own]`, { skip: true }, () => {});
}
