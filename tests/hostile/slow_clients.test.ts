/** `slowhttptest` against `examples/files.ts`: what it holds up is ended, and another client doesn't notice. */
import { assert, assertEquals } from "@std/assert";
import { mkdirSync, writeFileSync } from "node:fs";
import { run, serving, testWith, withFolder } from "../interop/programs.ts";
import { descriptors, notLinux, recovered } from "./victim.ts";

const ATTACKS = { "headers that never end (slowloris)": "-H", "a body that never ends": "-B" };

for (const [attack, option] of Object.entries(ATTACKS)) {
  if (notLinux !== false) continue;
  testWith("slowhttptest", `files: ${attack}, from a thousand clients`, () =>
    withFolder(async (folder) => {
      mkdirSync(`${folder}/root`);
      writeFileSync(`${folder}/root/index.html`, "<h1>hello</h1>\n");
      await serving("files.ts", ["--listen", "tcp://127.0.0.1:0", "--root", `${folder}/root`], async (server) => {
        const url = server.addresses[0]!.replace("tcp:", "http:");
        const ask = async () => assertEquals((await run("curl", ["-sS", `${url}/`])).stdout, "<h1>hello</h1>\n");
        await ask();
        const before = descriptors(server);
        // -i: seconds from one line to the next; -l: seconds in all; -p: seconds that its own check waits for an answer.
        const args = [option, "-c", "1000", "-r", "1000", "-i", "1", "-x", "8", "-l", "20", "-p", "3", "-u", `${url}/`];
        let over = false;
        const attacking = run("slowhttptest", args, "", folder).finally(() => over = true);
        let asked = 0;
        // Its last peers are ended by the server, which ends it too.
        for (; !over; asked++) await ask();
        const { stdout } = await attacking;
        assert(asked > 0 && !/service available:\s+NO/.test(stdout), stdout);
        await recovered(server, before);
      }, () => true);
    }));
}
