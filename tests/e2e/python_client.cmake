e2e_test(e2e_python_client fast test_python_client.py)
e2e_test(e2e_client_valgrind fast test_client_valgrind.py TIMEOUT 180)
