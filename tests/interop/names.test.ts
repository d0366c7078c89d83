/** Host names of several addresses: a mount namespace with an /etc/hosts of its own. */
import { assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { commandFor } from "../conformance/children.ts";
import { run, runtimeName, withFolder } from "./programs.ts";

// The C library takes ::1 for 127.0.0.1 where it is asked for an IPv4 address.
const HOSTS = "::1 both.test\n127.0.0.1 both.test\nfd00::7 six.test\n127.0.0.1 four.test\n";
const name = `${runtimeName} names: a datagram goes to the address that the socket can send to`;

if (spawnSync("unshare", ["-m", "mount", "--bind", "/etc/hosts", "/etc/hosts"]).status === 0) {
  test(name, () =>
    withFolder(async (folder) => {
      const hosts = join(folder, "hosts");
      writeFileSync(hosts, HOSTS);
      const program = commandFor(new URL("names.ts", import.meta.url));
      const script = 'mount --bind "$0" /etc/hosts && exec "$@"';
      const { status, stdout, stderr } = await run("unshare", ["-m", "sh", "-c", script, hosts, ...program]);
      assertEquals([status, stderr], [0, ""]);
      assertEquals(stdout.trimEnd().split("\n"), [
        "127.0.0.1 to both.test: udp://127.0.0.1",
        "[::1] to both.test: udp://[::1]",
        "[::] to both.test: udp://[::1]",
        "127.0.0.1 to six.test: EAFNOSUPPORT",
        "127.0.0.1 to four.test: udp://127.0.0.1",
        "[::1] to four.test: ENETUNREACH",
        "[::] to four.test: udp://127.0.0.1",
        "127.0.0.1 to none.test: ENOTFOUND",
        "[::] to none.test: ENOTFOUND",
        "IPv4 of both.test: udp://127.0.0.1",
        "IPv6 of both.test: udp://[::1]",
      ]);
    }));
} else {
  test(`${name} [skipped: it takes root and unshare, for an /etc/hosts of its own]`, { skip: true }, () => {});
}
