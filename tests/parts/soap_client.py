"""A SOAP client of the service that orders.wsdl beside it describes: soap_client.py URL"""

import pathlib
import sys

import zeep
from zeep.exceptions import Fault

WSDL = str(pathlib.Path(__file__).with_name("orders.wsdl"))


def main(url):
    for port, codes in [
        ("Port11", ("soap:Client", "soap:Server", "soap:MustUnderstand")),
        ("Port12", ("soap:Sender", "soap:Receiver", "soap:MustUnderstand")),
    ]:
        client = zeep.Client(WSDL, port_name=port)
        client.service._binding_options["address"] = url
        speak(client.service, codes)
    print("ok")


def speak(service, codes):
    sender, receiver, must_understand = codes

    order = service.GetOrder(id="a b ä")
    assert (order.id, order.note) == ("a b ä", None), order
    assert [(line.sku, line.count) for line in order.line] == [("<x>", 2)], order
    assert service.PlaceOrder(customer="Zoë & co", express=True, line=[{"sku": "x", "count": 1}]) == "8"
    assert service.DropOrder(id="7") is None

    assert_fault(sender, "no order none", lambda: service.GetOrder(id="none"))
    assert_fault(receiver, "the service answered 503", lambda: service.GetOrder(id="busy"))

    header = zeep.xsd.Element("{urn:x}Secret", zeep.xsd.ComplexType([
        zeep.xsd.Attribute("{http://schemas.xmlsoap.org/soap/envelope/}mustUnderstand", zeep.xsd.String()),
        zeep.xsd.Attribute("{http://www.w3.org/2003/05/soap-envelope}mustUnderstand", zeep.xsd.String()),
    ]))
    assert_fault(
        must_understand,
        "the header `Secret` must be understood, and is not",
        lambda: service.GetOrder(id="7", _soapheaders=[header(mustUnderstand="1", mustUnderstand__1="1")]),
    )


def assert_fault(code, message, call):
    try:
        got = call()
    except Fault as fault:
        assert (fault.code, fault.message) == (code, message), (fault.code, fault.message)
    else:
        raise AssertionError(f"no fault but {got}")


main(sys.argv[1])
