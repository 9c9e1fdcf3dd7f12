// The calculator of the scaling page: electra_tutorial.flops.training_cost in a browser.
(() => {
  const form = document.getElementById("calculator");
  const { runs } = JSON.parse(document.getElementById("calculator-constants").textContent);
  const field = (name) => document.getElementById(`calculator-${name}`);
  const number = (value, digits) =>
    value.toLocaleString("en", { maximumFractionDigits: digits });

  function cost(flops, peak, share_of_peak, devices, price_per_hour) {
    const hours = flops / (devices * peak * share_of_peak) / 3600;
    const price = hours * devices * price_per_hour;
    return { hours, price };
  }

  function show() {
    const result = field("result");
    const inputs = ["steps", "devices", "peak", "share", "price"].map(field);
    const wrong = inputs.find((input) => !input.checkValidity());
    if (wrong) {
      const label = form.querySelector(`label[for="${wrong.id}"]`).textContent;
      result.textContent = `${label}: ${wrong.validationMessage}`;
      return;
    }
    const [steps, devices, peak, share, price] = inputs.map((input) => Number(input.value));
    const flops = runs[field("size").value].step * steps;
    const { hours, price: total } = cost(flops, peak * 1e12, share / 100, devices, price);
    const time = hours < 48 ? `${number(hours, 1)} hours` : `${number(hours / 24, 1)} days`;
    result.textContent =
      `${flops.toExponential(2)} operations: ${time}, ` +
      `${number(hours * devices, 1)} device-hours, price ${number(total, total < 10 ? 2 : 0)}`;
  }

  field("size").addEventListener("input", () => {
    field("steps").value = runs[field("size").value].steps;
  });
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
