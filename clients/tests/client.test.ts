/**
 * The TypeScript client as its users have it, against a live server. `./scripts/check-clients` runs this.
 *
 * The server is at CLIENTS_TEST_URL; CLIENTS_TEST_ADMIN is the password of admin@example.com.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";

import {
  AuthV1Api,
  AuthV2Api,
  Configuration,
  HealthApi,
  ItemsV1Api,
  ItemsV2Api,
  UsersRole,
  UsersSort,
  UsersV1Api,
  UsersV2Api,
  type ErrorBody,
  type ItemOut,
  type SliceItemOut,
} from "@mainstay/client";
import { isAxiosError, type AxiosResponse } from "axios";

const basePath = process.env.CLIENTS_TEST_URL;
const adminPassword = process.env.CLIENTS_TEST_ADMIN;
assert.ok(basePath && adminPassword);
const password = "correct horse battery staple";

const unique = (prefix: string) => `${prefix}-${randomBytes(4).toString("hex")}`;

/** The typed error answer to a call that must be refused with this status. */
async function refusal(status: number, call: Promise<unknown>): Promise<AxiosResponse<ErrorBody>> {
  try {
    await call;
  } catch (error) {
    assert.ok(isAxiosError<ErrorBody>(error) && error.response, String(error));
    assert.equal(error.response.status, status);
    return error.response;
  }
  assert.fail(`was not refused with ${status}`);
}

const VERSIONS = {
  v1: { Auth: AuthV1Api, Items: ItemsV1Api, Users: UsersV1Api },
  v2: { Auth: AuthV2Api, Items: ItemsV2Api, Users: UsersV2Api },
};

for (const [version, { Auth, Items, Users }] of Object.entries(VERSIONS)) {
  describe(version, () => {
    const stranger = new Configuration({ basePath });

    async function signIn(email: string, secret: string, scope?: string) {
      const { data } = await new Auth(stranger).createToken({ username: email, password: secret, scope });
      const configuration = new Configuration({ basePath, accessToken: data.access_token });
      return {
        auth: new Auth(configuration),
        items: new Items(configuration),
        users: new Users(configuration),
        health: new HealthApi(configuration),
      };
    }

    async function signUp() {
      const email = `${unique("ada")}@example.com`;
      const { data: account } = await new Auth(stranger).signup({
        signup: { email, password, full_name: "Ada Lovelace" },
      });
      return { account, ...(await signIn(email, password)) };
    }
    let somebody: ReturnType<typeof signUp> | undefined;
    const newcomer = () => (somebody ??= signUp());

    test("who signs up can sign in and is known", async () => {
      const { account, auth } = await newcomer();
      const { data: me } = await auth.readMe();
      const { permissions, ...rest } = me;
      assert.deepEqual(rest, account);
      assert.ok(permissions.includes("items:write"));
      assert.ok(Math.abs(Date.now() - Date.parse(me.created_at)) < 60_000);
    });

    test("a token may be good for less", async () => {
      const { account } = await newcomer();
      const { items } = await signIn(account.email, password, "items:read");
      const { data } = await refusal(403, items.createItem({ itemIn: { name: "Teapot", price: "19.99" } }));
      assert.deepEqual(data.error.details, { missing: ["items:write"] });
    });

    test("an item keeps its money, its text and its moments", async () => {
      const { account, items } = await newcomer();
      const itemIn = { name: "Teekännchen 🫖 日本語", description: 'zwei\n"quoted" \\ & <b>', price: "9999999999.99", stock: 3 };
      const created = await items.createItem({ itemIn });
      assert.equal(created.status, 201);
      assert.equal(created.headers.location, `/api/${version}/store/items/${created.data.id}`);
      const { data: item } = await items.readItem({ itemId: created.data.id });
      assert.deepEqual(item, created.data);
      const { name, description, price, stock } = item;
      assert.deepEqual({ name, description, price, stock }, itemIn);
      assert.equal(item.owner_id, account.id);
      assert.match(item.created_at, /Z$/);
      const { data: found } = await items.listItems({ q: itemIn.name });
      assert.ok(found.items.some((one) => one.id === item.id));
    });

    test("the cursor leads through all items once", async () => {
      const { items } = await newcomer();
      const name = unique("cursor");
      const made: number[] = [];
      for (let n = 0; n < 7; n++) made.unshift((await items.createItem({ itemIn: { name: `${name} ${n}`, price: "1" } })).data.id);
      const seen: ItemOut[] = [];
      let cursor: string | undefined;
      let slices = 0;
      do {
        const { data }: { data: SliceItemOut } = await items.listItems({ q: name, limit: 3, cursor });
        seen.push(...data.items);
        cursor = data.next ?? undefined;
        slices++;
      } while (cursor !== undefined && slices < 10);
      assert.deepEqual(seen.map((item) => item.id), made);
      assert.equal(slices, 3);
    });

    test("numbered pages have a total", async () => {
      const { items } = await newcomer();
      const name = unique("pages");
      for (let n = 0; n < 3; n++) await items.createItem({ itemIn: { name, price: "1" } });
      const { data: first } = await items.pageItems({ q: name, page: 1, pageSize: 2 });
      const { data: last } = await items.pageItems({ q: name, page: 2, pageSize: 2 });
      assert.deepEqual([first.items.length, last.items.length, last.total, last.pages], [2, 1, 3, 2]);
    });

    test("If-Match lets the first edit through and refuses the stale one", async () => {
      const { items } = await newcomer();
      const created = await items.createItem({ itemIn: { name: "Teapot", price: "19.99", stock: 3 } });
      const itemId = created.data.id;
      const ifMatch = String(created.headers.etag);
      assert.ok(ifMatch.startsWith(`"${created.data.version}-`), ifMatch);
      const { data: changed } = await items.patchItem({ itemId, ifMatch, itemPatch: { price: "18.50" } });
      assert.deepEqual([changed.price, changed.name, changed.stock], ["18.50", "Teapot", 3]);
      const { data: stale } = await refusal(412, items.putItem({ itemId, ifMatch, itemIn: { name: "Other", price: "1" } }));
      assert.equal(stale.error.code, "precondition_failed");
      assert.deepEqual(stale.error.details, { current_version: changed.version });
      assert.deepEqual((await items.readItem({ itemId })).data, changed);
    });

    test("a deleted item is gone", async () => {
      const { items } = await newcomer();
      const { data: item } = await items.createItem({ itemIn: { name: "Teapot", price: "19.99" } });
      const deleted = await items.deleteItem({ itemId: item.id, ifMatch: `"${item.version}"` });
      assert.equal(deleted.status, 204);
      const gone = await refusal(404, items.readItem({ itemId: item.id }));
      assert.equal(gone.data.error.message, "There is no such item");
      assert.equal(gone.data.path, `/api/${version}/store/items/${item.id}`);
      assert.equal(gone.data.request_id, gone.headers["x-request-id"]);
    });

    test("strangers are told to sign in", async () => {
      const { data } = await refusal(401, new Items(stranger).listItems());
      assert.equal(data.error.code, "unauthorized");
      await refusal(401, signIn("nobody@example.com", password));
    });

    test("what is not permitted says what is missing", async () => {
      const { users } = await newcomer();
      const { data } = await refusal(403, users.listUsers());
      assert.deepEqual(data.error.details, { missing: ["users:read"] });
    });

    test("unacceptable values are listed by field", async () => {
      const { items } = await newcomer();
      const { data } = await refusal(422, items.createItem({ itemIn: { name: "", price: "1.999", stock: -1 } }));
      assert.equal(data.error.code, "invalid");
      const fields = (data.error.details as { field: string; message: string }[]).map((line) => line.field);
      assert.deepEqual(fields.sort(), ["body.name", "body.price", "body.stock"]);
      assert.equal((await refusal(400, items.listItems({ cursor: "none of yours" }))).data.error.code, "bad_request");
    });

    test("a taken address is a conflict", async () => {
      const { account, auth } = await newcomer();
      const { data } = await refusal(409, auth.signup({ signup: { email: account.email, password } }));
      assert.equal(data.error.code, "conflict");
    });

    test("accounts are filtered, sorted and counted", async () => {
      const { users } = await signIn("admin@example.com", adminPassword);
      const prefix = unique("grace");
      for (const n of [0, 1, 2]) await new Auth(stranger).signup({ signup: { email: `${prefix}-${n}@example.com`, password } });
      const createdFrom = new Date(Date.now() - 60_000).toISOString();
      const { data } = await users.listUsers({ q: prefix, role: UsersRole.User, isActive: true, createdFrom, sort: UsersSort.MinusEmail });
      assert.deepEqual(data.items.map((user) => user.email.at(-13)), ["2", "1", "0"]);
      const counted = await users.countUsers({ q: prefix });
      assert.equal(counted.headers["x-total-count"], "3");
      await refusal(404, users.headUser({ userId: 2_000_000_000 }));
    });

    test("health is public and its details are for staff", async () => {
      const { health } = await newcomer();
      assert.equal((await new HealthApi(stranger).ready()).data.status, "ok");
      await refusal(403, health.detailed());
      const staff = await signIn("admin@example.com", adminPassword);
      const { data } = await staff.health.detailed();
      assert.equal(data.components.find((part) => part.name === "database")?.status, "up");
    });
  });
}
