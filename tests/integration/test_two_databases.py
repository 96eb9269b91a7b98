"""One gateway on SQLite, the other on PostgreSQL: neither the partner nor a job can tell."""

from pathlib import Path

from gateway import lab
from tests import postgres
from tests.integration import rig as rigs


def test_a_job_of_two_databases(tmp_path: Path, postgres_server: postgres.Server) -> None:
    import psycopg  # only where there is a server

    directory = tmp_path / "lab"
    made = lab.up(directory, parties=2, jobs={"poll_s": 0.1, "misses": 20, "silence_s": 20.0})
    try:
        lab.down(directory)
        folder = made.node("payment").ca_file.parent.parent
        url = postgres_server.database()
        rigs.move_to(made.node("payment"), url)
        nodes = lab.up(directory)
        bank, payment = (
            rigs.Side(node, node.ca_file.parent, node.client(timeout_s=20.0))
            for node in (nodes.node("bank"), nodes.node("payment"))
        )
        rig = rigs.Rig(directory, bank, payment, {}, lab.sign(bank.node, payment.node))
        ours = rig.add_dataset(bank, [{"id": f"u{n}", "x": n} for n in range(30)])
        theirs = rig.add_dataset(payment, [{"id": f"u{n}", "z": n} for n in range(10, 40)])
        rig.grant(theirs, components=["psi"])
        project = rig.project(ours, theirs)
        job_id = rig.submit(rig.job_file(project, (ours, theirs), [{"component": "psi"}]))
        for view in rig.ended(job_id, seconds=60):
            assert view["job"]["status"] == "FINISHED", view["explanation"]
            assert {share["status"] for task in view["tasks"] for share in task["shares"]} == {"SUCCESS"}
        table = rig.download(bank, job_id, "psi_1", "data0").decode().splitlines()
        assert sorted(line.split(",")[0] for line in table[1:]) == sorted(f"u{n}" for n in range(10, 30))

        assert not (folder / "state.db").exists()
        assert (bank.folder / "state.db").exists()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT status FROM job").fetchall() == [("FINISHED",)]
        assert postgres_server.password not in payment.logs()
        rig._loop.close()
    finally:
        lab.down(directory)
