# What the group promises, on real processes: exactness, faults, errors, memory pressure, idling, the CLI.
e2e_test(e2e_exact fast test_exact.py TIMEOUT 300 ARGS tiny)
e2e_test(e2e_exact_demo fast test_exact.py TIMEOUT 300 ARGS demo 8 16)
e2e_test(e2e_exact_demo_full full test_exact.py TIMEOUT 1800 ARGS demo 32 64)
e2e_test(e2e_worker_faults fast test_worker_faults.py TIMEOUT 300)
e2e_test(e2e_errors fast test_errors.py TIMEOUT 300)
e2e_test(e2e_kv_pressure fast test_kv_pressure.py TIMEOUT 180)
e2e_test(e2e_idle fast test_idle.py ARGS 10)
e2e_test(e2e_cli fast test_cli.py TIMEOUT 120)
