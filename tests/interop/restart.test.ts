/** Restarting a server that shares its port with the one that takes its place. */
import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { commandFor } from "../conformance/children.ts";
import { run, runtimeName, testWith } from "./programs.ts";

const name = "SO_REUSEPORT: ten restarts under load, with net.ipv4.tcp_migrate_req, lose no connection";
const unshare = ["--map-root-user", "--net"];
const setting = "/proc/sys/net/ipv4/tcp_migrate_req";

if (spawnSync("unshare", [...unshare, "test", "-w", setting]).status !== 0) {
  void test(
    `${runtimeName} ${name} [skipped: no network of its own can be made here, or Linux is before 5.14]`,
    { skip: true },
    () => {},
  );
} else {
  testWith("setpriv", name, async () => {
    const driver = fileURLToPath(new URL("./sharing.py", import.meta.url));
    const [binary, ...args] = commandFor(new URL("../conformance/programs/sharing.ts", import.meta.url));
    if (runtimeName === "deno") args.splice(1, 0, "--unstable-net");
    const { status, stdout, stderr } = await run("unshare", [...unshare, "python3", driver, binary!, ...args]);
    assertEquals([status, stderr], [0, ""]);
    assert(Number(stdout) >= 500, stdout);
  });
}
