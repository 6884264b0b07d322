// Another device of the same user: it knows nothing of this page's cookie or tokens.

/**
 * Sign in there, and sign out all the user's other devices.
 *
 * @param {typeof fetch} fetch
 * @param {{username: string, password: string}} user
 */
export async function signOutOthers(fetch, user) {
  const content = { ...user, device: "Second device of the demo", refresh_in: "body" };
  const { access_token } = await (
    await expect(
      fetch("/auth/login", {
        method: "POST",
        credentials: "omit",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(content),
      }),
    )
  ).json();
  await expect(
    fetch("/auth/sessions?except=current", {
      method: "DELETE",
      credentials: "omit",
      headers: { Authorization: `Bearer ${access_token}` },
    }),
  );
}

async function expect(answer) {
  const response = await answer;
  if (!response.ok) throw new Error(`The second device was refused: ${response.headers.get("X-Gateway-Error")}.`);
  return response;
}
