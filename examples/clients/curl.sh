curl --fail-with-body --data-binary @picture.jpg \
  --header "Content-Type: application/x-image" \
  --header "Accept: application/json; top=5" \
  http://127.0.0.1:8080/invocations
