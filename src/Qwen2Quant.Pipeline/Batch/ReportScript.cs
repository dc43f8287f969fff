namespace Qwen2Quant.Pipeline.Batch;

/// <summary>The script of the report: sorting, and what a point is. Without it the page says the same. No character in it would be escaped in XML.</summary>
internal static class ReportScript
{
    public const string Text = """
        (function () {
          'use strict';
          var d = document;
          function each(root, selector, action) { Array.prototype.forEach.call(root.querySelectorAll(selector), action); }

          function sort(table, index, descending) {
            var heads = table.tHead.rows[0].cells, numeric = heads[index].hasAttribute('data-n'), body = table.tBodies[0];
            var rows = Array.prototype.slice.call(body.rows);
            rows.sort(function (a, b) {
              var x = a.cells[index].getAttribute('data-v'), y = b.cells[index].getAttribute('data-v');
              if (x === '' || y === '') return x === y ? 0 : x === '' ? 1 : -1;
              var order = numeric ? x - y : x.localeCompare(y, 'en', { numeric: true });
              return descending ? -order : order;
            });
            rows.forEach(function (row) { body.appendChild(row); });
            each(table, 'thead th', function (head) { head.removeAttribute('aria-sort'); });
            heads[index].setAttribute('aria-sort', descending ? 'descending' : 'ascending');
            table.caption.querySelector('span span').textContent = 'Items by ' + heads[index].textContent + (descending ? ', descending.' : ', ascending.');
          }

          each(d, 'table', function (table) {
            each(table, 'thead th', function (head) {
              var button = d.createElement('button');
              button.type = 'button';
              button.textContent = head.textContent;
              button.addEventListener('click', function () { sort(table, head.cellIndex, head.getAttribute('aria-sort') === 'ascending'); });
              head.textContent = '';
              head.appendChild(button);
            });
          });

          function sortAsAsked() {
            var asked = /^#sort=(-?)(\w+)$/.exec(location.hash);
            if (!asked) return;
            each(d, 'thead th', function (head) {
              if (head.getAttribute('data-key') === asked[2]) sort(head.closest('table'), head.cellIndex, asked[1] === '-');
            });
          }
          window.addEventListener('hashchange', sortAsAsked);
          sortAsAsked();

          var tip = d.createElement('div');
          tip.id = 'tip';
          tip.hidden = true;
          tip.setAttribute('aria-hidden', 'true');
          d.body.appendChild(tip);
          function row(point) { return d.getElementById(point.getAttribute('data-row')); }
          function hide(point) { tip.hidden = true; row(point).classList.remove('hit'); }
          function show(point) {
            tip.textContent = point.getAttribute('aria-label');
            tip.hidden = false;
            var at = point.getBoundingClientRect(), own = tip.getBoundingClientRect(), wide = d.documentElement.clientWidth;
            var top = at.top - own.height - 8;
            tip.style.left = window.scrollX + Math.max(8, Math.min(at.left + at.width / 2 - own.width / 2, wide - own.width - 8)) + 'px';
            tip.style.top = window.scrollY + (top > 0 ? top : at.bottom + 8) + 'px';
            row(point).classList.add('hit');
          }
          each(d, 'svg.plot', function (plot) {
            var points = Array.prototype.slice.call(plot.querySelectorAll('.pt'));
            points.forEach(function (point, index) {
              point.removeChild(point.querySelector('title'));
              point.addEventListener('mouseenter', function () { show(point); });
              point.addEventListener('mouseleave', function () { hide(point); });
              point.addEventListener('focus', function () { show(point); });
              point.addEventListener('blur', function () { hide(point); });
              point.addEventListener('keydown', function (event) {
                if (event.key === 'Escape') hide(point);
                var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], next = step ? points[index + step] : null;
                if (!next) return;
                event.preventDefault();
                point.setAttribute('tabindex', '-1');
                next.setAttribute('tabindex', '0');
                next.focus();
              });
            });
          });
          each(d, 'tbody tr', function (line) {
            function mark(on) { each(d, '.pt[data-row="' + line.id + '"]', function (point) { point.classList.toggle('hit', on); }); }
            line.addEventListener('mouseenter', function () { mark(true); });
            line.addEventListener('mouseleave', function () { mark(false); });
          });
        })();

        """;
}
