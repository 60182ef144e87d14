"""Sign-ins and sign-ups are counted, those of this app alone, and without anybody's name."""

import httpx2
from fastapi import FastAPI

SIGN_UP = {"email": "grace@example.com", "password": "many requests a second"}


def reading(app: FastAPI, name: str) -> dict[tuple[str, ...], float]:
    return next(dict(found) for figure, found in app.state.figures.read() if figure.name == name)


async def test_sign_ups_and_sign_ins_are_counted(app: FastAPI, client: httpx2.AsyncClient) -> None:
    names = "sign_ups", "sign_ins", "refresh_token_reuses"
    before = {name: reading(app, name) for name in names}
    assert (await client.post("/api/v1/auth/signup", json=SIGN_UP)).status_code == 201
    assert (await client.post("/api/v1/auth/signup", json=SIGN_UP)).status_code == 409
    form = {"username": SIGN_UP["email"], "password": SIGN_UP["password"]}
    tokens = (await client.post("/api/v1/auth/token", data=form)).json()
    assert (await client.post("/api/v1/auth/token", data=form | {"password": "wrong"})).status_code == 401
    again = {"refresh_token": tokens["refresh_token"]}
    assert (await client.post("/api/v1/auth/refresh", json=again)).status_code == 200
    grown = {name: {key: value - before[name][key] for key, value in reading(app, name).items()} for name in names}
    assert grown == {
        "sign_ups": {(): 1},
        "sign_ins": {("succeeded",): 1, ("failed",): 1},
        "refresh_token_reuses": {(): 0},
    }
