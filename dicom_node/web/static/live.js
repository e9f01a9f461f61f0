// Keeps a page fresh: when the server says that something has changed, the page is fetched anew and its live regions are put in the
// place of the old ones, by their ids. Without this script every page works as it was sent. Written by hand for this project.
"use strict";

(() => {
  const heard = document.getElementById("heard");
  let busy = false;
  let again = false;

  // What a person is doing inside a region outlives its replacement: ticks, what is open, and where the focus is.
  const keep = (region) => {
    const ticked = new Set([...region.querySelectorAll("input[type=checkbox][id]:checked")].map((one) => one.id));
    const opened = new Map([...region.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const active = document.activeElement;
    const within = region.contains(active) ? active : null;
    const scrolled = [...region.querySelectorAll(".wide")].map((one) => one.scrollLeft);
    const chosen = new Map([...region.querySelectorAll("select[id]")].map((one) => [one.id, one.value]));
    const focus = within && { id: within.id, href: within.getAttribute("href") };
    return (fresh) => {
      for (const one of fresh.querySelectorAll("input[type=checkbox][id]")) one.checked = ticked.has(one.id);
      for (const one of fresh.querySelectorAll("details[id]")) if (opened.has(one.id)) one.open = opened.get(one.id);
      for (const one of fresh.querySelectorAll("select[id]")) if (chosen.has(one.id)) one.value = chosen.get(one.id);
      fresh.querySelectorAll(".wide").forEach((one, place) => { one.scrollLeft = scrolled[place] || 0; });
      if (!focus) return;
      const same = focus.id ? document.getElementById(focus.id)
        : focus.href ? [...fresh.querySelectorAll("a")].find((one) => one.getAttribute("href") === focus.href)
          : fresh.querySelector(".wide");
      if (same) same.focus({ preventScroll: true });
    };
  };

  const swap = (page) => {
    for (const old of document.querySelectorAll("[data-live][id]")) {
      const fresh = page.getElementById(old.id);
      if (!fresh || old.isEqualNode(fresh)) continue;
      const restore = keep(old);
      const imported = document.importNode(fresh, true);
      if (old.hasAttribute("aria-live")) {  // a live region is announced when its content changes, not when it is another
        old.replaceChildren(...imported.childNodes);
        restore(old);
      } else {
        old.replaceWith(imported);
        restore(imported);
      }
    }
    // A region that is new, such as the first retrieval of a study, comes after the one that stands before it.
    for (const fresh of page.querySelectorAll("main [data-live][id]")) {
      if (document.getElementById(fresh.id)) continue;
      const before = fresh.previousElementSibling && document.getElementById(fresh.previousElementSibling.id);
      if (before) before.after(document.importNode(fresh, true));
    }
  };

  const look = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store", redirect: "error", headers: { "X-Dicom-Node-Looks": "1" } });
      if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      else if (answer.status === 401 || answer.status === 403) location.reload();
    } catch {
      heard.hidden = true;  // the node is away: the stream says so too, and is opened anew by the browser
    }
    busy = false;
    if (again) { again = false; look(); }
  };

  const theme = document.getElementById("theme");
  if (theme) theme.addEventListener("change", () => { document.documentElement.dataset.theme = theme.value; theme.form.requestSubmit(); });

  if (!document.querySelector("main [data-live]") || !window.EventSource) return;
  let events = null;
  const listen = () => {
    if (events) return;
    events = new EventSource("/events");
    events.addEventListener("open", () => { heard.hidden = false; look(); });
    events.addEventListener("changed", look);
    events.addEventListener("error", () => {
      heard.hidden = true;
      // Too many pages listen, or the session has ended: this page looks once by itself, which leads to the log-in where it may no longer.
      if (events && events.readyState === EventSource.CLOSED) { events = null; look(); setTimeout(listen, 5000); }
    });
  };
  // A page that nobody sees listens to nothing.
  const mind = () => {
    if (document.visibilityState === "visible") listen();
    else if (events) { events.close(); events = null; heard.hidden = true; }
  };
  document.addEventListener("visibilitychange", mind);
  mind();
})();
