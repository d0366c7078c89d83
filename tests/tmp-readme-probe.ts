import { AsyncTCPServer, BaseRequestHandler, TCPServer, connect, serve, formatAddress, getRuntime } from "@sockets/server";
const n = getRuntime().name;
class H extends BaseRequestHandler { override async handle() { console.log(n, "peer", JSON.stringify(this.clientAddress)); await this.request.write("x"); } }
async function t(what: string, f: () => Promise<unknown>) { try { console.log(n, what, JSON.stringify(await f())); } catch (e) { console.log(n, what, "ERR", (e as Error).name, (e as Error).message); } }
await t("dual", async () => {
  const s = new AsyncTCPServer("tcp://[::]:0", H); await s.activate(); const p = s.serveForever();
  const port = (s.serverAddress as any).port;
  for (const h of ["127.0.0.1", "::1"]) { try { const c = await connect({ transport: "tcp", hostname: h, port }); await c.read(); await c.close(); } catch (e) { console.log(n, h, (e as Error).message); } }
  await s.shutdown(); await p; await s.serverClose(); return s.serverAddress; });
await t("reusePort", async () => { const a = new TCPServer("tcp://127.0.0.1:0", H, { allowReusePort: true }); await a.activate(); const b = new TCPServer(a.serverAddress, H, { allowReusePort: true }); await b.activate(); await a.serverClose(); await b.serverClose(); return "ok"; });
await t("inuse", async () => { const a = new TCPServer("tcp://127.0.0.1:0", H); await a.activate(); try { await new TCPServer(a.serverAddress, H).activate(); } finally { await a.serverClose(); } });
await t("ipv6Only", async () => { const a = new TCPServer("tcp://[::]:0", H, { ipv6Only: true }); await a.activate(); const port=(a.serverAddress as any).port; try { const c= await connect({transport:"tcp",hostname:"127.0.0.1",port}); await c.close(); return "v4 got in"; } finally { await a.serverClose(); } });
await t("keepAlive", async () => { const a = new TCPServer("tcp://[::1]:0", H, { keepAlive: 5000 }); await a.activate(); await a.serverClose(); return "ok"; });
await t("notavail", async () => { await new TCPServer("tcp://192.0.2.1:0", H).activate(); });
await t("notfound", async () => { await new TCPServer("tcp://no-such.invalid:0", H).activate(); });
await t("notfoundc", async () => { await connect("tcp://no-such.invalid:5"); });
await t("refused", async () => { await connect("tcp://127.0.0.1:1"); });
await t("localhost", async () => { const a = new TCPServer("tcp://localhost:0", H); await a.activate(); const r = a.serverAddress; await a.serverClose(); return r; });
await t("localhost6", async () => { const a = new TCPServer("tcp://localhost:0", H, {addressFamily:"IPv6"}); await a.activate(); const r = a.serverAddress; await a.serverClose(); return r; });
await t("abort", async () => { const s = await serve("tcp://127.0.0.1:0", (c) => c.abort()); const c = await connect(s.serverAddress); try { return await c.read(); } finally { await c.close(); await s.serverClose(); } });
await t("afterEnd", async () => { const s = await serve("tcp://127.0.0.1:0", async (c) => { while (await c.read()); }); const c = await connect(s.serverAddress); try { await c.closeWrite(); await c.write("x"); } finally { await c.close(); await s.serverClose(); } });
await t("unixaddr", async () => { new TCPServer("unix:/tmp/x", H); });
await t("udp", async () => { new TCPServer("udp://127.0.0.1:0", H); });
await t("udpconn", async () => { await connect("udp://127.0.0.1:5"); });
await t("reuseaddr", async () => { await new TCPServer("tcp://127.0.0.1:0", H, {allowReuseAddress:false}).activate(); });
await t("unknownopt", async () => { await new TCPServer("tcp://127.0.0.1:0", H, {nope:false} as any).activate(); });
