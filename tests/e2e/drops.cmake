e2e_test(e2e_drops fast test_drops.py TIMEOUT 240 ARGS 200 20)
e2e_test(e2e_drops_full full test_drops.py TIMEOUT 900 ARGS 1000 64)
