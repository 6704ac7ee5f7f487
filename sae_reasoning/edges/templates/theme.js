"use strict";
(function () {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("sae_reasoning.theme"); } catch (_) { return null; } };
  const apply = () => { root.dataset.theme = kept() || (system.matches ? "dark" : "light"); };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => { button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark"; };
    say();
    button.addEventListener("click", () => {
      const wanted = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("sae_reasoning.theme", wanted); } catch (_) { /* not kept */ }
      root.dataset.theme = wanted;
      say();
    });
  });
})();
