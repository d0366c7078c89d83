/** Records of TLS 1.3 that only the client of a connection can make, made from its secret: for what no client does by itself. */
import { createCipheriv, createHmac } from "node:crypto";

/** Kinds of records (RFC 8446, section 5.1). */
export const ALERT = 21;
export const HANDSHAKE = 22;
export const DATA = 23;

/** Asks the peer to use new keys too (RFC 8446, section 4.6.3). */
const KEY_UPDATE = new Uint8Array([24, 0, 0, 1, 1]);

/** Encrypts with TLS_AES_128_GCM_SHA256 in the client's name. */
export class Forger {
  #secret!: Uint8Array;
  #key!: Uint8Array;
  #iv!: Uint8Array;
  #sequence!: number;

  /**
   * @param keyLog What the client has written to its file of keys, in the format of NSS.
   * @param sequence How many records the client has sent since its handshake.
   */
  constructor(keyLog: string, sequence: number) {
    this.#use(Buffer.from(/^CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)$/m.exec(keyLog)![1]!, "hex"));
    this.#sequence = sequence;
  }

  /** The next record. */
  record(kind: number, content: Uint8Array): Uint8Array {
    const header = Buffer.from([DATA, 3, 3, 0, 0]);
    header.writeUInt16BE(content.length + 17, 3);
    const nonce = Buffer.from(this.#iv);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ this.#sequence++) >>> 0, 8);
    const cipher = createCipheriv("aes-128-gcm", this.#key, nonce).setAAD(header);
    return Buffer.concat([
      header,
      cipher.update(content),
      cipher.update(new Uint8Array([kind])),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
  }

  /** A record that changes the key of those that follow. */
  keyUpdate(): Uint8Array {
    const record = this.record(HANDSHAKE, KEY_UPDATE);
    this.#use(expand(this.#secret, "traffic upd", 32));
    return record;
  }

  #use(secret: Uint8Array): void {
    this.#secret = secret;
    this.#key = expand(secret, "key", 16);
    this.#iv = expand(secret, "iv", 12);
    this.#sequence = 0;
  }
}

/** HKDF-Expand-Label of RFC 8446, section 7.1, for what one SHA-256 has room for. */
function expand(secret: Uint8Array, label: string, size: number): Uint8Array {
  const name = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([Buffer.from([0, size, name.length]), name, Buffer.from([0, 1])]);
  return createHmac("sha256", secret).update(info).digest().subarray(0, size);
}
